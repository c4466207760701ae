"""Settings that a model's pipeline does not take are one line, before anything is loaded or made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from erase.config.prompts import Row
from erase.errors import BadModel, BadOption
from erase.models import Model, open_model
from erase.sampling.generate import generate
from erase.sampling.sampler import Sampler
from erase.sampling.suited import check_suited
from tests.families import Opener
from tests.recipes import command, refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        (
            "stable-diffusion",
            {"size": 1001},
            "height is 1001 pixels; .* takes multiples of 8, such as 1000",
        ),
        ("stable-diffusion-xl", {"size": "1000x1012"}, "height is 1012 pixels; .*multiples of 8"),
        (
            "stable-diffusion-3",
            {"size": "16x18"},
            "height is 18 pixels; .* takes multiples of 4, such as 16",
        ),
        ("stable-diffusion-3", {"size": 64}, "height is 64 pixels; stable-diffusion-3 takes at most 32"),
        ("flux", {"size": 18}, "multiples of 4, such as 16"),
        ("stable-diffusion", {"scheduler": "euler_b"}, 'scheduler is "euler_b"; expected one of ddim'),
        ("flux", {"scheduler": "ddim"}, 'scheduler "ddim" is not for this model; expected one of euler, dpmpp_2m'),
        ("stable-diffusion-xl", {"negative": "blurry", "guidance": 1.0}, "acts through guidance, which is 1"),
        ("flux", {"negative": "blurry", "guidance": 3.5}, "acts through true_guidance, which is 1"),
        ("stable-diffusion-3", {"true_guidance": 2.0}, "guidance-distilled models such as FLUX.1"),
        ("stable-diffusion-2", {"max_sequence_length": 77}, "is for models that read T5"),
        ("flux", {"clip_skip": 1}, "reads none"),
    ],
)
def test_what_the_pipeline_does_not_take_is_said_before_anything_is_made(
    family: str, settings: dict[str, Any], said: str, family_model: Opener, tmp_path: Path
) -> None:
    with pytest.raises(BadOption, match=said):
        generate(family_model(family), [Row("a cat", 0)], tmp_path / "images", sampler=Sampler(**settings))
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-3", "flux"])
def test_what_it_takes_is_let_through(family: str, family_model: Opener) -> None:
    check_suited(family_model(family), Sampler(size="32x16", scheduler="euler"))


def test_a_scheduler_whose_noise_images_share_is_refused_unless_another_is_named(tiny_copy: Path) -> None:
    file = tiny_copy / "scheduler/scheduler_config.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(said | {"_class_name": "DPMSolverSDEScheduler"}), encoding="utf-8")
    model = open_model(tiny_copy)
    with pytest.raises(BadOption, match="draws noise that images beside each other share; name another: ddim"):
        check_suited(model, Sampler())
    check_suited(model, Sampler(scheduler="dpmpp_2m"))


def test_a_model_of_one_prediction_a_step_takes_no_negative_prompt(tiny_copy: Path) -> None:
    file = tiny_copy / "unet/config.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    model = open_model(tiny_copy)
    file.write_text(json.dumps(said | {"time_cond_proj_dim": 8}), encoding="utf-8")
    with pytest.raises(BadOption, match="distilled to one prediction a step"):
        check_suited(model, Sampler(negative="blurry"))


def test_the_refiner_is_refused_by_name(family_model: Opener, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family_model("stable-diffusion-xl").path, tmp_path / "refiner"))
    shutil.rmtree(folder / "text_encoder")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    said = {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index | said), encoding="utf-8")
    with pytest.raises(BadModel, match="is the refiner of Stable Diffusion XL"):
        open_model(folder)


def test_a_run_says_so_before_it_edits(capsys: Capture, tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_recipe(tmp_path, tiny_model))
    line = refused(capsys, "run", recipe, "--size", "33", "-o", tmp_path / "run")
    assert "height is 33 pixels; stable-diffusion takes multiples of 8, such as 32" in line
    assert not (tmp_path / "run" / "edit.safetensors").exists()


def test_the_commands_options_reach_the_images(capsys: Capture, model: Model, tmp_path: Path) -> None:
    given = ("--size", "24x16", "--negative", "a dog", "--scheduler", "euler", "--steps", 2, "--batch", 1)
    said = command(capsys, "generate", "-m", model.path, "-p", "a cat", *given, "-o", tmp_path / "images")
    assert said.code == 0, said.errors
    (path,) = (tmp_path / "images/before").iterdir()
    sampler = Sampler(steps=2, batch=1, size="24x16", negative="a dog", scheduler="euler")
    (expected,) = generate(model, [Row("a cat", 0)], tmp_path / "python", sampler=sampler)
    assert path.read_bytes() == expected.read_bytes()
    line = refused(capsys, "generate", tmp_path, "--size", 16)
    assert "not both" in line
