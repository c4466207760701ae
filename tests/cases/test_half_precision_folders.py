"""Folders whose files are named as a half-precision variant's: all commands read the files that are edited."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.models import fingerprint_of, open_model
from tests.families import Opener
from tests.recipes import command, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]


def halved(folder: Path) -> Path:
    """The model with all its weights in float16, in files with the variant's names."""
    for file in [
        one for part in ("unet", "transformer", "vae", "text_enc*") for one in folder.glob(f"{part}/*.safetensors")
    ]:
        half = {key: value.half() for key, value in load_file(file).items()}
        save_file(half, file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")), {"format": "pt"})
        file.unlink()
    return folder


def test_a_folder_of_half_precision_files_alone_works_in_every_command(
    tiny_copy: Path, tmp_path: Path, capsys: Capture
) -> None:
    model, edit = halved(tiny_copy), tmp_path / "edit.safetensors"
    recipe = write_recipe(tmp_path, tiny_recipe(tmp_path, model))
    export = ("export", "-m", model, "-e", edit)
    for arguments in (
        ("edit", "-m", model, "-t", "noto", "-a", "blob", "--method", "uce", "-o", edit),
        ("generate", "-m", model, "-e", edit, "-p", "a cat", "--steps", 1, "-o", tmp_path / "images"),
        (*export, "--to", "folder", "-o", tmp_path / "folder"),
        (*export, "--to", "lora", "-o", tmp_path / "lora"),
        ("generate", "-m", tmp_path / "folder", "-p", "a cat", "--steps", 1, "-o", tmp_path / "edited"),
        ("inspect", tmp_path / "folder"),
        ("diff", model, tmp_path / "folder"),
        ("run", recipe, "-o", tmp_path / "run"),
    ):
        said = command(capsys, *arguments)
        assert said.code == 0, (arguments, said.errors)


def test_half_precision_files_beside_a_pickle_are_what_is_edited_and_what_is_drawn(tiny_copy: Path) -> None:
    model = halved(tiny_copy)
    for file in model.glob("*/*.fp16.safetensors"):
        other = {key: torch.zeros_like(value) for key, value in load_file(file).items()}
        name = "pytorch_model.bin" if file.name.startswith("model") else "diffusion_pytorch_model.bin"
        torch.save(other, file.with_name(name))
    opened = open_model(model)
    assert fingerprint_of(opened.pipeline()) == opened.fingerprint
    assert bool(opened.pipeline().vae.decoder.conv_in.weight.any())


def test_every_family_is_loaded_from_half_precision_files(family_model: Opener, tmp_path: Path) -> None:
    for family in ("stable-diffusion-xl", "stable-diffusion-3", "flux"):
        model = open_model(halved(Path(shutil.copytree(family_model(family).path, tmp_path / family))))
        assert fingerprint_of(model.pipeline()) == model.fingerprint
