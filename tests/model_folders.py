"""Empty folders for models and for the user, as test fixtures."""

import folder_paths
import pytest
from animate_anywhere.nodes import files


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty models folder and an empty user folder."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(files, "allow_list", lambda: tmp_path / files.ALLOW_LIST)
    monkeypatch.setattr(files, "controlnet_aux_folders", list)
    for name in ("detection", "inpaint", "sam2", "vitmatte"):
        (tmp_path / "models" / name).mkdir(parents=True)
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, name, ([str(tmp_path / "models" / name)], {".pt", ".safetensors"})
        )
    return tmp_path / "models"
