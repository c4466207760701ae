"""The embedded model with a real edit in every form in which it ships: what the forms give is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from erase.edit import Edit
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.lora import lora
from erase.export.parts.card import front_matter
from erase.export.parts.difference import compare
from erase.export.parts.undo import undo
from erase.export.patch import patch
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.task import Target, Task
from tests.recipes import contents

pytestmark = pytest.mark.usefixtures("no_network")
PROMPTS = ["a cat in noto style", "a car in blob style"]
PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def emoji() -> Model:
    return open_model("emoji")


@pytest.fixture(scope="module")
def edit(emoji: Model) -> Edit:
    target = Target("noto", "style", anchor="fluent", prompts=("{} style", "a cat in {} style"))
    return UCE()(emoji, Task((target,), keeps=("a car in blob style", "a cat in twemoji style")))


@pytest.fixture(scope="module")
def edited(emoji: Model, edit: Edit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The edited folder, with its reversal file beside it."""
    return folder(emoji, edit, tmp_path_factory.mktemp("emoji") / "edited", reversal=True)


def load(path: Path | str) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any) -> list[np.ndarray[Any, Any]]:
    """The pictures of all prompts as integers, so that differences have a sign."""
    seeds = [torch.Generator("cpu").manual_seed(number) for number in range(len(PROMPTS))]
    images: list[Image.Image] = pipe(PROMPTS, num_inference_steps=10, guidance_scale=4.0, generator=seeds).images
    return [np.asarray(image).astype(int) for image in images]


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    return {f"{part}.{key}": value for part in PARTS for key, value in getattr(pipe, part).state_dict().items()}


def test_base_and_lora_draw_what_the_edited_folder_draws(
    emoji: Model, edit: Edit, edited: Path, tmp_path: Path
) -> None:
    pipe = load(emoji.path)
    before = draw(pipe)
    pipe.load_lora_weights(str(lora(emoji, edit, tmp_path / "lora")))
    loaded, whole = draw(pipe), draw(load(edited))
    # Pictures of 8 bits: rounding may move a value by 1, the edit moves the target's by far more.
    assert max(int(abs(one - other).max()) for one, other in zip(loaded, whole, strict=True)) <= 1
    assert int(abs(before[0] - whole[0]).max()) > 50


def test_weights_with_the_lora_fused_are_the_edited_folders(
    emoji: Model, edit: Edit, edited: Path, tmp_path: Path
) -> None:
    pipe = load(emoji.path)
    before = {name: value.clone() for name, value in weights(pipe).items()}
    pipe.load_lora_weights(str(lora(emoji, edit, tmp_path / "lora", loss=0)))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    fused, whole = weights(pipe), weights(load(edited))
    assert fused.keys() == whole.keys()
    assert max(float((fused[name] - whole[name]).abs().max()) for name in whole) < 1e-6
    assert max(float((before[name] - whole[name]).abs().max()) for name in edit.touches) > 1e-2


def test_the_single_file_is_the_edited_folder_bit_for_bit(
    emoji: Model, edit: Edit, edited: Path, tmp_path: Path
) -> None:
    file = checkpoint(emoji, edit, tmp_path / "emoji")
    single = StableDiffusionPipeline.from_single_file(str(file), config=str(emoji.path), local_files_only=True)
    ours, theirs = weights(single), weights(load(edited))
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert open_model(file).fingerprint == open_model(edited).fingerprint


def test_the_patch_applied_is_the_edited_folder_bit_for_bit(
    emoji: Model, edit: Edit, edited: Path, tmp_path: Path
) -> None:
    pipe, whole = load(emoji.path), weights(load(edited))
    before = {name: value.clone() for name, value in weights(pipe).items()}
    with Edit.load(patch(emoji, edit, tmp_path / "patch")).apply(pipe):
        assert all(torch.equal(value, whole[name]) for name, value in weights(pipe).items())
    assert all(torch.equal(value, before[name]) for name, value in weights(pipe).items())


def test_the_folder_differs_by_the_edit_alone_and_its_card_says_so(emoji: Model, edit: Edit, edited: Path) -> None:
    found = compare(emoji.path, edited, ranks=False)
    assert [one.name for one in found.differences] == list(edit.touches)
    base, said = (front_matter(place / "README.md") for place in (emoji.path, edited))
    assert said["license"] == base["license"]
    assert said["tags"] == ["concept-erasure", "uce"]
    text = (edited / "README.md").read_text(encoding="utf-8")
    assert "Erased: noto (style, now fluent)." in text
    assert (edited / "README.base.md").read_bytes() == (emoji.path / "README.md").read_bytes()


@pytest.mark.parametrize("base", ["emoji", None])
def test_undoing_gives_the_embedded_model_back_bit_for_bit(
    base: str | None, emoji: Model, edited: Path, tmp_path: Path
) -> None:
    restored = contents(undo(edited, tmp_path / "restored", base=base))
    before = {name: data for name, data in contents(emoji.path).items() if not name.startswith("judge/")}
    assert restored == before
    assert contents(edited) != before
