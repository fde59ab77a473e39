"""scripts/models.py against a hub on this machine: what it lists, and what it does with connections and files that go
wrong."""

import errno
import hashlib
import json
import os

import download
import pack
import pytest
import toy_server
from animate_anywhere.nodes import background, detection, files, mask

import models

WEIGHTS = os.urandom(200_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


class Hub(toy_server.ToyServer):
    """Repositories, as huggingface.co answers."""

    def __init__(self) -> None:
        super().__init__()
        self.files["some/model/resolve/main/weights.safetensors"] = WEIGHTS

    def headers_of(self, path):
        content = self.files[path]
        return {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}

    def page(self, path):
        tree, prefix = "api/models/some/model/tree/main", "some/model/resolve/main/"
        if not path.startswith(tree):
            return None
        below, entries = path.removeprefix(tree).strip("/"), []
        for name, content in self.files.items():
            if name.startswith(prefix + below):
                entry = {"type": "file", "path": name.removeprefix(prefix), "size": len(content), "oid": "0" * 40}
                if name.endswith(".safetensors"):
                    oid = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
                entries.append(entry)
        return json.dumps(entries).encode()


@pytest.fixture
def hub(monkeypatch):
    with Hub().running() as server:
        monkeypatch.setattr(models, "HUB", server.url)
        monkeypatch.setattr(models, "RESERVE", 0)
        monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
        yield server


@pytest.fixture
def model(hub, tmp_path):
    """model(**facts): the file on the hub, of which nothing is known but what is given."""

    def model(**facts) -> models.Model:
        address = f"{hub.url}/some/model/resolve/main/weights.safetensors"
        return models.Model("weights.safetensors", "vae", [tmp_path / "vae"], **{"address": address, **facts})

    return model


@pytest.fixture(scope="module")
def table():
    return {model.name: model for model in models.load(models.comfyui_folder())}


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((pack.ROOT / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_what_a_workflow_offers_to_download_is_in_the_table_with_the_same_address(path, table):
    for node in json.loads(path.read_text())["nodes"]:
        for offered in node.get("properties", {}).get("models", []):
            known = table[offered["name"]]
            assert (known.address, known.folder) == (offered["url"], offered["directory"])


def test_the_nodes_take_their_addresses_from_the_table(table):
    for kind in (mask.SAM2, mask.VITMATTE, background.LAMA):
        known = table.get(kind.known) or table[f"{kind.known}/"]
        assert known.folder == kind.folder and files.address(kind.known) == known.address
    for source in detection.PEOPLE + detection.POINTS:
        assert table[source.name].folder == detection.FOLDER
        assert table[source.name].address == source.address and f"/{source.repository}/" in source.address
    assert table[detection.HEAVY].folder == detection.FOLDER


def test_every_entry_can_be_had_and_says_what_it_is_for(table):
    for model in table.values():
        assert bool(model.address) != bool(model.make), model.name
        assert model.address.startswith("https://") or model.make
        assert model.purpose and (not model.sha256 or len(model.sha256) == 64)
        assert model.make or bool(model.sha256) != bool(model.unverified), model.name


def test_the_list_tells_everything_and_downloads_nothing(hub, tmp_path, monkeypatch, capsys):
    """What lies in a folder of extra_model_paths.yaml is there, and what is a torso is not."""
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "wan_2.1_vae.safetensors").write_bytes(b"too short")
    (tmp_path / "vae" / "cogvideox_vae.safetensors").write_bytes(b"its size is not known")
    config = tmp_path / "extra.yaml"
    config.write_text(f"mine:\n  base_path: {tmp_path}\n  vae: vae\n  is_default: true\n")
    monkeypatch.setattr("sys.argv", ["models.py", "--extra-model-paths-config", str(config)])
    assert models.main() == 0
    told = capsys.readouterr().out
    lines = {line.split("/")[-1]: line.split() for line in told.splitlines()[::1] if not line.startswith(" ")}
    assert lines["cogvideox_vae.safetensors"][0] == models.THERE
    assert lines["wan_2.1_vae.safetensors"][0] == models.INCOMPLETE
    assert lines["big-lama.pt"][:4] == [models.MISSING, "205.7", "MB", "Apache-2.0"]
    assert "344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9" in told
    assert "https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt" in told
    assert "weights/vae/aa_tiny_vae.safetensors" in told
    assert not hub.asked


@pytest.mark.parametrize("source", detection.PEOPLE + detection.POINTS, ids=lambda source: source.name)
def test_a_detector_that_comfyui_controlnet_aux_has_is_there(source, tmp_path, monkeypatch):
    """Where the node finds it, and the place of downloads stays the first."""
    monkeypatch.setenv("AUX_ANNOTATOR_CKPTS_PATH", str(tmp_path))
    path = tmp_path / source.repository / source.name
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    (found,) = (model for model in models.load(models.comfyui_folder()) if model.name == source.name)
    assert found.path() == detection.find_file(source) == path
    assert found.places[0].parts[-2:] == ("models", detection.FOLDER)


# --- getting them -----------------------------------------------------------------------------------------------------


def test_a_download_that_breaks_off_goes_on_and_takes_its_name_at_the_end(model, hub, tmp_path):
    hub.breaks = [70_000, 50_000]
    models.get(model(size=len(WEIGHTS), sha256=SHA256))
    assert (tmp_path / "vae" / "weights.safetensors").read_bytes() == WEIGHTS
    assert hub.asked == [None, "bytes=70000-", "bytes=120000-"]
    assert os.listdir(tmp_path / "vae") == ["weights.safetensors"]


def test_what_an_earlier_run_left_is_gone_on_with_and_what_is_there_is_left_alone(model, hub, tmp_path, capsys):
    hub.breaks = [1000] * download.ATTEMPTS
    with pytest.raises(download.DownloadError, match="run again to go on"):
        models.get(model())
    assert model().state() == models.INCOMPLETE
    models.get(model())
    assert hub.asked[-1] == f"bytes={1000 * download.ATTEMPTS}-" and model().state() == models.THERE
    asked = len(hub.asked)
    models.get(model())
    assert len(hub.asked) == asked and "is there" in capsys.readouterr().out


def test_a_server_that_ignores_ranges_starts_over(model, hub, tmp_path):
    hub.ranges, hub.breaks = False, [1000]
    models.get(model(sha256=SHA256))
    assert (tmp_path / "vae" / "weights.safetensors").read_bytes() == WEIGHTS


def test_what_the_hub_publishes_is_compared_where_the_table_knows_nothing(model, hub, tmp_path):
    (part := tmp_path / "vae" / "weights.safetensors.part").parent.mkdir()
    part.write_bytes(b"x" * 1000)  # another file's
    models.get(model())
    assert (tmp_path / "vae" / "weights.safetensors").read_bytes() == WEIGHTS
    assert hub.asked == ["bytes=1000-", None]


def test_a_wrong_hash_is_told_and_leaves_nothing(model, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "HUB", "https://elsewhere")  # as a server that tells no hashes
    with pytest.raises(download.DownloadError, match=f"is not the expected file: it has sha256 {SHA256}, not 0000"):
        models.get(model(sha256="0" * 64))
    assert not list((tmp_path / "vae").iterdir())


def test_a_file_that_was_changed_on_the_hub_is_told_before_it_is_downloaded(model, hub):
    with pytest.raises(models.ModelsError, match="is another file than before: its sha256"):
        models.get(model(sha256="0" * 64))
    assert not hub.asked


def test_another_file_of_the_name_is_not_overwritten(model, hub, tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "weights.safetensors").write_bytes(b"mine")
    with pytest.raises(models.ModelsError, match="4 bytes, not 200,000. Move it away"):
        models.get(model())
    assert not hub.asked


def test_a_disk_without_room_is_told_before_the_download(model, hub, monkeypatch):
    monkeypatch.setattr(models, "RESERVE", 1 << 60)
    with pytest.raises(models.ModelsError, match="are needed .* Make room, or name another folder"):
        models.get(model())
    assert not hub.asked


def test_a_disk_that_fills_up_stops_it_at_once_and_keeps_what_is_there(model, hub, monkeypatch, capsys):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(models, "load", lambda *_: [model()])
    monkeypatch.setattr("sys.argv", ["models.py", "get", "weights.safetensors"])
    with monkeypatch.context() as patch:
        patch.setattr(models.downloads, "continue_download", full)
        assert models.main() == 1
    assert "No space left on device. Make room and run it again" in capsys.readouterr().err
    assert models.main() == 0


def test_a_folder_is_downloaded_with_what_loaders_read(hub, tmp_path):
    below = "some/model/resolve/main/transformer"
    hub.files |= {
        f"{below}/config.json": b"{}",
        f"{below}/one.safetensors": WEIGHTS,
        f"{below}/pickled.bin": b"a program",
        "some/model/resolve/main/README.md": b"words",
    }
    folder = models.Model("Mine/transformer/", "vae", [tmp_path], address=f"{hub.url}/some/model/tree/main/transformer")
    hub.breaks = [2, 100_000]
    models.get(folder)
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {"Mine/transformer/config.json", "Mine/transformer/one.safetensors"}
    assert folder.state() == models.THERE
    (tmp_path / "Mine/transformer/one.safetensors").unlink()
    assert folder.state() == models.INCOMPLETE


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("transformer/../../../evil.safetensors", "leads outside"),
        ("transformer//etc/evil.safetensors", "leads outside"),
        ("transformer/C:\\evil.safetensors", "leads outside"),
        ("elsewhere/evil.safetensors", "is not in transformer/"),
        ("transformer/evil.part", "reserved"),
        ("transformer/" + "x" * 256, "longer than"),
        (7, "does not answer as a hub does"),
        (None, "does not answer as a hub does"),
    ],
)
def test_a_listing_writes_nothing_outside_its_folder(hub, tmp_path, monkeypatch, path, message):
    entry = {"type": "file", "path": path, "size": 3, "oid": "0" * 40}
    monkeypatch.setattr(hub, "page", lambda place: json.dumps([entry]).encode() if place.startswith("api/") else None)
    with pytest.raises(models.ModelsError, match=message):
        models.get(transformer(hub, tmp_path))
    assert not hub.asked and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"no json", b"[" * 100_000, b"{}", b"[7]", b"[]", b'[{"type": "file"}]',
        b'[{"type": "file", "path": "transformer/a.safetensors", "size": "x", "oid": "0"}]',
        b'[{"type": "file", "path": "transformer/a", "size": -1, "oid": "0"}]',
        b'[{"type": "file", "path": "transformer/a", "size": 1, "oid": "0",'
        b' "lfs": {"oid": "x", "size": 1, "pointerSize": 1}}]',
        b'[{"type": "file", "path": "transformer/a", "size": 1, "oid": "0"},'
        b' {"type": "file", "path": "transformer/A", "size": 1, "oid": "0"}]',
    ],
)  # fmt: skip
def test_a_listing_that_makes_no_sense_is_one_line(hub, tmp_path, monkeypatch, content):
    monkeypatch.setattr(hub, "page", lambda place: content if place.startswith("api/") else None)
    with pytest.raises(models.ModelsError, match="^http.*/transformer") as error:
        models.get(transformer(hub, tmp_path))
    assert len(str(error.value).splitlines()) == 1


def transformer(hub, folder):
    return models.Model("Mine/transformer/", "vae", [folder], address=f"{hub.url}/some/model/tree/main/transformer")


def test_what_cannot_be_verified_is_said(model, hub, tmp_path, monkeypatch, capsys):
    unknown = model(unverified="nobody tells")
    assert "cannot be verified: nobody tells" in models.described(unknown)
    monkeypatch.setattr(models, "HUB", "https://elsewhere")  # as a server that tells no hashes
    models.get(unknown)
    assert models.check([unknown]) == 0
    told = capsys.readouterr().out
    assert told.count("cannot be verified") == 2


def test_a_name_that_is_none_and_a_file_that_is_made(table):
    with pytest.raises(models.ModelsError, match=r"there is no nothing\. There are: .*big-lama\.pt"):
        models.chosen(list(table.values()), ["nothing"])
    with pytest.raises(models.ModelsError, match=r"not downloaded but made: scripts/convert_blazepose\.py heavy --to"):
        models.chosen(list(table.values()), ["blazepose_heavy.safetensors"])


def test_what_is_there_is_compared_with_its_hash(model, tmp_path, capsys):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "weights.safetensors").write_bytes(WEIGHTS)
    assert models.check([model(sha256=SHA256)]) == 0
    assert models.check([model(sha256="0" * 64)]) == 1
    assert "not the published file" in capsys.readouterr().out
