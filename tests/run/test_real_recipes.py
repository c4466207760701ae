"""The pipelines of real models: every family has the same, by name, and each makes its edit on a tiny model."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from erase import registry
from erase.context import RunContext
from erase.export.patch import patch
from erase.models import Model, open_model
from erase.run.options import make_edit, method_for
from erase.run.pipeline import load_pipeline, resolve
from tests.loading import load_script
from tests.recipes import command

SCRIPT = Path(__file__).parents[2] / "scripts" / "random_models.py"
FAMILY = {"sd": "stable-diffusion", "sdxl": "stable-diffusion-xl", "flux": "flux"}
RECIPES = ("celebrity", "nudity", "van-gogh")
NAMES = [f"{folder}/{name}" for folder in FAMILY for name in RECIPES]
MINORS = re.compile(r"\b(child|children|kid|kids|boy|girl|teen\w*|minor|young|baby|schoolgirl)\b", re.IGNORECASE)


@cache
def model_of(name: str) -> Model:
    """A tiny random model of a recipe's family, which reads whole prompts."""
    return open_model(load_script(SCRIPT).pipeline(FAMILY[name.partition("/")[0]], tiny=True))


def test_every_family_has_the_same_recipes() -> None:
    assert sorted(name for name in registry.known("pipelines") if "/" in name) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_resolves_to_a_hub_id_and_the_protocol_of_its_kind(name: str) -> None:
    pipeline = resolve(load_pipeline(name))
    assert registry.is_hub_id(pipeline.model)
    assert pipeline.verify.protocol == f"any-{pipeline.task.kind}"
    assert len(pipeline.make_rows()) >= 80


@pytest.mark.parametrize("name", NAMES)
def test_no_recipe_concerns_minors(name: str) -> None:
    text = (registry.data_folder("pipelines") / f"{name}.yaml").read_text(encoding="utf-8")
    rows = [row.prompt for row in load_pipeline(name).make_rows()]
    assert [one for one in (text, *rows) if MINORS.search(one)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_moves_its_target_on_a_model_of_its_family(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, model = load_pipeline(name), model_of(name)
    task = pipeline.make_task()
    method = method_for(pipeline.edit.method, pipeline.edit.options, model=model, task=task)
    edit = make_edit(method, model, task, work=RunContext())
    assert edit.touches
    assert "next to nothing" not in caplog.text
    assert patch(model, edit, tmp_path / "edit.safetensors").is_file()


@pytest.mark.parametrize("folder", FAMILY)
def test_the_values_are_the_published_ones(folder: str) -> None:
    def made(name: str) -> Any:
        pipeline = load_pipeline(f"{folder}/{name}")
        task = pipeline.make_task()
        return method_for(pipeline.edit.method, pipeline.edit.options, model=model_of(folder), task=task)

    uce, rece, speed = made("van-gogh"), made("nudity"), made("celebrity")
    assert (uce.lamb, uce.erase_scale, uce.preserve_scale, uce.tokens) == (0.5, 1.0, 1.0, "last")
    assert (rece.rounds, rece.reg, rece.lamb, rece.preserve_scale, rece.together) == (3, 0.1, 0.1, 0.1, False)
    assert (speed.retain_scale, speed.threshold, speed.augment, speed.keeps) == (0.05, 0.1, 10, "layer")


def test_a_name_of_a_folder_is_listed_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    listed = command(capsys, "list", "pipelines")
    told = command(capsys, "list", "pipelines", "sd/van-gogh")
    assert listed.code == told.code == 0
    assert "sd/van-gogh" in listed.out
    assert told.out.startswith("sd/van-gogh")


def test_a_name_that_is_near_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    said = command(capsys, "run", "sd/van-gog")
    assert said.code == 2
    assert 'did you mean "sd/van-gogh"?' in said.errors
