"""Every family ships as what it can: LoRA and single file for those with a UNet, one line for the others."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from erase.edit import Edit, EditInfo, TextMap
from erase.errors import BadModel
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.lora import lora
from erase.models import Model, open_model

tiny = pytest.importorskip("tests.tiny_families", reason="only Stable Diffusion 1 is here")
WITH_UNET = ("stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module", params=WITH_UNET)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(tiny.tiny_family(request.param, tmp_path_factory.mktemp("family") / request.param))


def edit_of(model: Model) -> Edit:
    """A text map on all sites that read tokens, and a dense change in every text encoder."""
    generator = torch.Generator().manual_seed(0)
    sites = [site for site in model.sites() if site.reads == "tokens"]
    width = sites[0].columns
    up, down = (torch.randn(shape, generator=generator) for shape in ((width, 2), (2, width)))
    names = [f"{part}.encoder.layers.0.self_attn.k_proj.weight" for part in model.text_components]
    deltas = {name: 0.05 * torch.randn(model.weight(name).shape, generator=generator) for name in names}
    info = EditInfo("uce", {}, {}, model.family, model.fingerprint)
    return Edit(info, (TextMap(0.1 * up, down, tuple(site.name for site in sites)),), deltas)


def parts(pipe: Any, model: Model) -> dict[str, torch.Tensor]:
    """Every weight of a pipeline by its name."""
    components = ("unet", "vae", *model.text_components)
    return {f"{part}.{key}": value for part in components for key, value in getattr(pipe, part).state_dict().items()}


def test_a_single_file_is_the_edited_folder_tensor_for_tensor(opened: Model, tmp_path: Path) -> None:
    edit = edit_of(opened)
    base, whole = opened.pipeline(), open_model(folder(opened, edit, tmp_path / "folder")).pipeline()
    file = checkpoint(opened, edit, tmp_path / "single")
    single = type(whole).from_single_file(str(file), config=str(opened.path), local_files_only=True)
    before, ours, theirs = (parts(pipe, opened) for pipe in (base, single, whole))
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []
    assert sum(not torch.equal(before[key], theirs[key]) for key in theirs) == len(edit.touches)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="diffusers loads a LoRA through peft")
def test_base_and_lora_are_the_edited_folder(opened: Model, tmp_path: Path) -> None:
    edit = edit_of(opened)
    whole = parts(open_model(folder(opened, edit, tmp_path / "folder")).pipeline(), opened)
    pipe = opened.pipeline()
    pipe.load_lora_weights(str(lora(opened, edit, tmp_path / "lora", rank=64)))
    pipe.fuse_lora(components=["unet", *opened.text_components])
    pipe.unload_lora_weights()
    fused = parts(pipe, opened)
    assert max(float((fused[key] - whole[key]).abs().max()) for key in whole) < 2e-6


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_what_has_no_such_form_is_one_line(family: str, tmp_path: Path) -> None:
    model = open_model(tiny.tiny_family(family, tmp_path / "model"))
    edit = edit_of(model) if any(site.reads == "tokens" for site in model.sites()) else None
    edit = edit or Edit(EditInfo("uce", {}, {}, model.family, model.fingerprint))
    for write in (lora, checkpoint):
        with pytest.raises(BadModel, match=r"Stable Diffusion 1, 2 and XL"):
            write(model, edit, tmp_path / "out")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("family", WITH_UNET)
def test_an_opened_single_file_is_patched_and_keeps_all_else(family: str, tmp_path: Path) -> None:
    files = pytest.importorskip("tests.tiny_checkpoints")
    _, source = files.tiny_checkpoint(family, tmp_path)
    model = open_model(source)
    edit = edit_of(model)
    old, new = load_file(source), load_file(checkpoint(model, edit, tmp_path / "out"))
    assert old.keys() == new.keys()
    differ = {key for key in old if not torch.equal(old[key], new[key])}
    assert len(differ) == len(edit.touches)
    with pytest.raises(BadModel, match="as a checkpoint"):
        folder(model, edit, tmp_path / "folder")
