"""Configurations of networks are data: nothing in them is fetched or run."""

import json
import socket

import pytest
import safetensors.torch
import torch
from animate_anywhere.models import matting, sam2
from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting

pytest_plugins = ["model_folders"]
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to connect is noted and fails."""
    attempts = []

    def refuse(_self, address, *_):
        attempts.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: refuse(None, host))
    yield attempts
    assert not attempts


CRAFTED = [
    {"backbone": "somebody/else"}, {"backbone": "resnet50", "use_timm_backbone": True, "backbone_config": None},
    {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet18", "use_pretrained_backbone": True}},
    {"backbone_config": {"model_type": "vitdet", "_name_or_path": "x", "backbone": "facebook/vit"}},
    {"auto_map": {"AutoConfig": "somebody/else--configuration.Config"}},
    {"quantization_config": {"quant_method": "bitsandbytes"}}, {"model_type": "resnet"}, {"backbone_config": []},
    {"backbone_config": {"hidden_size": True}}, {"backbone_config": {"hidden_size": 10**400}},
    {"backbone_config": {"num_hidden_layers": 10**6}}, {"backbone_config": {"hidden_act": "__import__('os')"}},
    {"backbone_config": {"image_size": -7}}, {"backbone_config": {"window_block_indices": [[[1]]]}},
    {"backbone_config": {"num_attention_heads": 0}}, {"backbone_config": {"patch_size": 0}},
    {"hidden_size": "384"}, {"hidden_size": [384]}, {"hidden_size": 60_000}, {"batch_norm_eps": "x"},
    {"convstream_hidden_sizes": [65_536] * 3}, {"convstream_hidden_sizes": []}, {"fusion_hidden_sizes": [1e9]},
    {"fusion_hidden_sizes": {"a": 1}},
]  # fmt: skip


class TestConfigurations:
    @pytest.fixture
    def folder(self, models):
        with torch.inference_mode(False):
            backbone = VitDetConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, pretrain_image_size=32,
                num_channels=4, out_features=["stage2"],
            )  # fmt: skip
            network = VitMatteForImageMatting(
                VitMatteConfig(
                    backbone_config=backbone, hidden_size=16, convstream_hidden_sizes=[8, 8, 8],
                    fusion_hidden_sizes=[16, 8, 8, 8],
                )
            )  # fmt: skip
        network.save_pretrained(models / "vitmatte" / "toy")
        return models / "vitmatte" / "toy"

    @staticmethod
    def change(folder, changes):
        config = json.loads((folder / "config.json").read_text())
        for name, value in changes.items():
            config[name] = (
                {**config[name], **value} if isinstance(value, dict) and isinstance(config.get(name), dict) else value
            )
        (folder / "config.json").write_text(json.dumps(config))

    def test_an_unchanged_one_loads_without_a_network(self, folder, no_network):
        matting.load(folder)

    @pytest.mark.parametrize("changes", CRAFTED, ids=lambda changes: json.dumps(changes)[:50])
    def test_a_crafted_one_is_one_error_and_nothing_is_fetched(self, folder, no_network, changes):
        self.change(folder, changes)
        with pytest.raises(ValueError, match=r"^matting: .*toy does not hold ViTMatte \("):
            matting.load(folder)

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "7", "{", '{"a":' * 100_000, "\xff", '{"hidden_size": NaN}', '{"hidden_size": 1e999}',
         '{"hidden_size": 1, "hidden_size": 2}', '{"hidden_size": ' + "9" * 5000 + "}"],
        ids=lambda text: text[:20],
    )  # fmt: skip
    def test_one_that_is_not_json_is_one_error(self, folder, no_network, text):
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"^matting: .*toy does not hold ViTMatte \("):
            matting.load(folder)

    def test_other_files_in_the_folder_are_not_read(self, folder, no_network):
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else", "peft_type": "LORA"}')
        (folder / "generation_config.json").write_text("[")
        matting.load(folder)

    def test_sam_2_takes_no_crafted_one_either(self, models, no_network):
        folder = models / "sam2" / "sam2-x"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"vision_config": {"backbone_config": {"backbone": "a/b"}}}))
        safetensors.torch.save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
        with pytest.raises(ValueError, match=r"^weights: .*sam2-x does not hold SAM 2 \(.*backbone is 'a/b'"):
            sam2.load(folder)
