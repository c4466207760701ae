"""A manifest is read with distrust, and anything in which its folder differs is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from erase.errors import BadModel
from erase.export.folder import folder
from erase.export.parts.manifest import is_inside, verify
from erase.models import Model
from tests.export.test_lora import made
from tests.recipes import command, refused

Capture = pytest.CaptureFixture[str]
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="session")
def exported_once(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(model, made(model), tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_once, tmp_path / "exported"))


def rewritten(folder: Path, **changes: Any) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_a_whole_folder_is_what_it_says(capsys: Capture, exported: Path) -> None:
    said = command(capsys, "verify-manifest", exported)
    assert said.code == 0
    assert "8 changed tensors" in said.out
    (exported / ".gitattributes").write_text("the hub adds it", encoding="utf-8")
    verify(exported)


def test_one_bit_is_told(capsys: Capture, exported: Path) -> None:
    data = bytearray((exported / "vae/config.json").read_bytes())
    data[3] ^= 1
    (exported / "vae/config.json").write_bytes(data)
    assert "vae/config.json has another hash; download" in refused(capsys, "verify-manifest", exported)


def test_a_missing_and_an_added_file_are_told(exported: Path) -> None:
    (exported / "tokenizer/tokenizer.json").unlink()
    (exported / "unet/diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadModel, match=r"tokenizer\.json is missing.*1 more"):
        verify(exported)
    shutil.copyfile(exported / "vae/config.json", exported / "tokenizer/tokenizer.json")
    with pytest.raises(BadModel, match="has another hash"):
        verify(exported)


def test_a_tensor_that_is_not_the_edited_one_is_told_even_if_its_files_hash_was_adapted(exported: Path) -> None:
    from erase.files import sha256_of

    manifest = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    tensors = load_file(exported / UNET)
    name = manifest["changed"][0]["tensor"]
    tensors[name.removeprefix("unet.")] += 1
    save_file(tensors, exported / UNET)
    files = manifest["files"] | {UNET: {"sha256": sha256_of(exported / UNET), "bytes": 1}}
    rewritten(exported, files=files)
    with pytest.raises(BadModel, match=f"{name} has another value"):
        verify(exported)


def test_a_link_out_of_the_folder_is_not_followed(exported: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    (exported / "vae/config.json").rename(outside)
    (exported / "vae/config.json").symlink_to(outside)
    with pytest.raises(BadModel, match="link that leads out"):
        verify(exported)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "vae/../../secret", "a\\b", "./vae", "", "vae//x"])
def test_a_name_that_leads_elsewhere_is_not_trusted(name: str, exported: Path) -> None:
    assert not is_inside(name)
    rewritten(exported, files={name: {"sha256": "0", "bytes": 0}})
    with pytest.raises(BadModel, match="do not trust it"):
        verify(exported)
    rewritten(exported, files={}, renamed={"README.base.md": name})
    with pytest.raises(BadModel, match="do not trust it"):
        verify(exported)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"files": 3}', '{"files": {"a": 1}, "changed": [], "edit": {"content": ""}, "base": ""}']
)
def test_a_damaged_manifest_is_one_line(text: str, exported: Path) -> None:
    (exported / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadModel, match="is damaged"):
        verify(exported)


def test_a_folder_without_a_manifest_is_one_line(capsys: Capture, tiny_model: Path) -> None:
    assert "has no manifest.json" in refused(capsys, "verify-manifest", tiny_model)
