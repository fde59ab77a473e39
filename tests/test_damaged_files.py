"""Weights that are damaged or made to do harm: one error names the file, whatever is in it."""

import copy
import json
import random
import struct

import pytest
import released
import safetensors.torch
import torch
import toys
from animate_anywhere.models import checkpoint, dynamictrl, inpainter, pose_motion, sam2, shards
from animate_anywhere.models.checked_json import shown
from animate_anywhere.nodes import detection

pytest_plugins = ["model_folders"]
pytestmark = pytest.mark.usefixtures("no_gradients")


def write_safetensors(path, header, data=b""):
    """A safetensors file with ``header`` as it is: an object, or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


FOUR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
DAMAGED = {
    "empty": b"",
    "three bytes": b"abc",
    "header larger than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "header of 2**64 bytes": b"\xff" * 8 + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "deep nesting": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "a list": struct.pack("<Q", 2) + b"[]",
    "overlapping": {"a": FOUR, "b": FOUR},
    "a gap": {"a": FOUR, "b": {**FOUR, "data_offsets": [20, 36]}},
    "backwards": {"a": {**FOUR, "data_offsets": [16, 0]}},
    "negative": {"a": {**FOUR, "data_offsets": [-16, 0]}},
    "wrong size": {"a": {**FOUR, "shape": [5]}},
    "terabytes": {"a": {**FOUR, "shape": [1 << 40]}},
    "overflow": {"a": {**FOUR, "shape": [1 << 63, 1 << 63]}},
    "10**400": {"a": {**FOUR, "shape": [10**400]}},
    "negative shape": {"a": {**FOUR, "shape": [-4]}},
    "shape true": {"a": {**FOUR, "shape": [True]}},
    "shape a text": {"a": {**FOUR, "shape": "4"}},
    "unknown type": {"a": {**FOUR, "dtype": "F7"}},
    "type a number": {"a": {**FOUR, "dtype": 4}},
    "no type": {"a": {"shape": [4], "data_offsets": [0, 16]}},
    "entry a number": {"a": 7},
    "metadata a list": {"__metadata__": [1], "a": FOUR},
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": FOUR},
    "a key twice": f'{{"a":{json.dumps(FOUR)},"a":{json.dumps(FOUR)}}}'.encode(),
    "too short": {"a": {**FOUR, "shape": [400], "data_offsets": [0, 1600]}},
}  # fmt: skip
READERS = {
    "adapter": checkpoint.load,
    "checkpoint": dynamictrl.load,
    "weights": sam2.load,
    "invent": lambda path: inpainter.load(path, None),
    "method": pose_motion.load,
}


class TestSafetensors:
    @pytest.mark.parametrize("reader", READERS)
    @pytest.mark.parametrize("damage", DAMAGED)
    def test_a_damaged_file_is_one_error_that_names_it(self, tmp_path, reader, damage):
        path, content = tmp_path / "sam2_odd.safetensors", DAMAGED[damage]
        if isinstance(content, bytes) and not content.startswith(b'{"a"'):
            path.write_bytes(content)
        else:
            write_safetensors(path, content, bytes(16))
        with pytest.raises(ValueError, match=rf"^{reader}: .*odd.safetensors"):
            READERS[reader](path)

    @pytest.mark.parametrize("reader", READERS)
    def test_a_file_that_went_away_is_one_error(self, tmp_path, reader):
        with pytest.raises(ValueError, match=rf"^{reader}: .*odd.safetensors"):
            READERS[reader](tmp_path / "odd.safetensors")

    def test_the_heavy_blazepose_is_checked_too(self, models):
        (models / "detection" / detection.HEAVY).write_bytes(b"rubbish")
        with pytest.raises(ValueError, match=r"^detector: blazepose_heavy.safetensors"):
            detection.load_blazepose(detection.BLAZEPOSE_HEAVY)


ODD_VALUES = [
    None, True, False, -1, 0, 2**70, 10**400, 0.5, 1e308, "", "7", "128", "../x", [], [1], [[]], {}, {"a": 1},
]  # fmt: skip


def places_in(value, path=()):
    """The paths to every field of nested objects."""
    for name, each in value.items():
        yield (*path, name)
        if isinstance(each, dict):
            yield from places_in(each, (*path, name))


def changed(header, place, value):
    """``header`` with ``value`` at ``place``; `REMOVED` takes the field away."""
    header = copy.deepcopy(header)
    inner = header
    for name in place[:-1]:
        inner = inner[name]
    if value is REMOVED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return header


REMOVED = object()


class TestHeaders:
    @pytest.fixture(scope="class")
    def adapter(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
        network = toys.cogvideox_patcher().model.diffusion_model
        checkpoint.save(path, checkpoint.Base.of(network), checkpoint.fresh(network, rank=4))
        return path

    @staticmethod
    def with_header(source, target, text):
        content = source.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"] = {checkpoint.METADATA_KEY: text}
        return write_safetensors(target, header, content[8 + length :])

    @staticmethod
    def header_of(path):
        return json.loads(shards.read_header(path)[1][checkpoint.METADATA_KEY])

    def each_change(self, path, harmless):
        header = self.header_of(path)
        for place in places_in(header):
            if place[0] in ("training", "licence") and len(place) > 1:
                continue  # free text of whoever trained it
            for value in [*ODD_VALUES, REMOVED]:
                now = changed(header, place, value)
                if now != header and not isinstance(value, harmless.get(place, ())):
                    yield place, value, now

    def test_every_odd_value_in_an_adapters_header_is_one_error(self, adapter, tmp_path):
        harmless = {("licence",): str, ("training",): dict}
        tried = 0
        for place, value, header in self.each_change(adapter, harmless):
            path = self.with_header(adapter, tmp_path / "odd.safetensors", json.dumps(header))
            with pytest.raises(ValueError, match=r"^adapter: .*odd.safetensors"):
                checkpoint.load(path)
                pytest.fail(f"{place} = {value!r} passed")
            tried += 1
        assert tried > 200

    def test_every_odd_value_in_the_motion_heads_header_is_one_error(self, tmp_path):
        source = tmp_path / "method.safetensors"
        with torch.inference_mode(False):
            size = pose_motion.Size(width=32, blocks=1, heads=2, window=8, overlap=2)
            pose_motion.save(source, pose_motion.PoseMotion(size), {"steps": 1})
        harmless = {("training",): object}
        for place, value, header in self.each_change(source, harmless):
            path = self.with_header(source, tmp_path / "odd.safetensors", json.dumps(header))
            with pytest.raises(ValueError, match=r"^method: .*odd.safetensors"):
                pose_motion.load(path)
                pytest.fail(f"{place} = {value!r} passed")

    @pytest.mark.parametrize("text", ["", "[]", "7", "null", "{", '{"a":' * 50_000, '{"format": 1, "format": 1}'])
    def test_a_header_that_is_no_object_is_one_error(self, adapter, tmp_path, text):
        path = self.with_header(adapter, tmp_path / "odd.safetensors", text)
        with pytest.raises(ValueError, match=r"^adapter: .*odd.safetensors"):
            checkpoint.load(path)

    def test_weights_that_are_no_floats_are_refused(self, adapter, tmp_path):
        tensors = safetensors.torch.load_file(adapter)
        tensors = {key: torch.zeros(value.shape, dtype=torch.int8) for key, value in tensors.items()}
        header = json.dumps(self.header_of(adapter))
        path = tmp_path / "odd.safetensors"
        safetensors.torch.save_file(tensors, path, metadata={checkpoint.METADATA_KEY: header})
        with pytest.raises(ValueError, match=r"^adapter: odd.safetensors has .* in I8"):
            checkpoint.load(path)

    def test_flipped_bytes_never_raise_anything_else(self, adapter, tmp_path):
        """300 files with up to eight bytes of their headers changed."""
        content = adapter.read_bytes()
        length = 8 + struct.unpack("<Q", content[:8])[0]
        draw = random.Random(0)
        for _ in range(300):
            damaged = bytearray(content)
            for _ in range(draw.randint(1, 8)):
                damaged[draw.randrange(length)] = draw.randrange(256)
            path = tmp_path / "odd.safetensors"
            path.write_bytes(damaged)
            try:
                checkpoint.load(path)
            except ValueError as error:
                assert str(error).startswith("adapter: ")


class TestDynamiCtrl:
    @pytest.fixture(scope="class")
    def state(self):
        return released.weights(2)

    @pytest.mark.parametrize(
        "index",
        ["[]", "{}", "7", '{"weight_map": []}', '{"weight_map": {"a": 7}}', '{"weight_map": {"a": ["x"]}}',
         '{"weight_map": {"a": "../../secret.safetensors"}}', '{"weight_map": {"a": "/etc/passwd"}}',
         '{"weight_map": {"a": "sub/x.safetensors"}}', '{"weight_map": {"a": null}}', '{"weight_map":' * 50_000,
         "\xff"],
        ids=lambda text: text[:40],
    )  # fmt: skip
    def test_an_odd_index_is_one_error(self, tmp_path, state, index):
        folder = released.save(tmp_path / "odd", state, 2)
        (folder / shards.INDEX).write_bytes(index.encode("latin-1"))
        with pytest.raises(ValueError, match=r"^checkpoint: odd"):
            dynamictrl.load(folder)

    @pytest.mark.parametrize("value", [value for value in ODD_VALUES if value != 2])
    def test_an_odd_value_in_the_configuration_is_one_error(self, tmp_path, state, value):
        folder = released.save(tmp_path / "odd", state, 1)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_layers": value}))
        with pytest.raises(ValueError, match=r"^checkpoint: config.json of odd says num_layers"):
            dynamictrl.load(folder)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("transformer_blocks.0.norm1.linear.weight", torch.zeros(6)),
            ("transformer_blocks.0.norm1.linear.weight", torch.zeros(0, 0)),
            ("transformer_blocks.0.norm1.linear.weight", torch.zeros(5, 7)),
            ("transformer_blocks.1.attn1.to_q.weight", torch.zeros(3)),
            ("patch_embed.text_proj.weight", torch.zeros(3)),
            ("patch_embed.proj.weight", torch.zeros(())),
            ("transformer_blocks.1.control_norm1.linear.weight", torch.zeros(1, 1, 1)),
            ("transformer_blocks.1.attn1.to_q.bias", torch.zeros(1, dtype=torch.int64)),
        ],
    )
    def test_a_weight_of_another_shape_or_type_is_one_error(self, tmp_path, state, key, value):
        folder = released.save(tmp_path / "odd", {**state, key: value}, 1)
        with pytest.raises(ValueError, match=r"^checkpoint: .*odd"):
            dynamictrl.load(folder)

    def test_a_file_never_makes_the_converter_write_outside_its_target(self, tmp_path, state):
        source = tmp_path / "odd.safetensors"
        origin = {"config": "{}", "index": json.dumps({"weight_map": {"a": "../stolen.safetensors"}})}
        safetensors.torch.save_file({"a": torch.zeros(4)}, source, metadata={shards.METADATA_KEY: json.dumps(origin)})
        with pytest.raises(ValueError, match=r"^odd.safetensors: .*leads outside"):
            shards.to_folder(source, tmp_path / "target" / "inner")
        assert not (tmp_path / "target").exists()


def test_numbers_of_any_size_can_be_shown():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (10**10_000, deep, "x" * 10**6, float("nan")):
        assert len(shown(value)) < 100
