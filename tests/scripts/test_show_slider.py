"""The sliders that are shown: both go both ways, and neither is judged by a prompt that its edit was trained on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from erase.edit import Edit, EditInfo
from erase.methods.closed_form.states import prompt_pairs

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def slider() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPTS))
    yield import_module("show_slider")
    sys.path.remove(str(SCRIPTS))


@pytest.mark.parametrize("name", ["style", "attribute"])
def test_each_strength_is_judged_on_the_same_prompts_and_none_without_a_style_was_trained_on(
    slider: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, drawn = [], []

    def edit_of(asked: str, *given: Any, **more: Any) -> Any:
        made.append(asked)
        return Edit(EditInfo("lora", {}, {}, "stable-diffusion", "0" * 64)), {"seconds": 1.0}

    def shown(model: Any, edit: Edit | None, rows: Any, **more: Any) -> dict[str, list[float]]:
        drawn.append((edit.info.strength if edit else 0.0, rows))
        return {"named": [1.0, 1.0, 1.0]}

    monkeypatch.setattr(slider, "edit_of", edit_of)
    monkeypatch.setattr(slider, "shown", shown)
    options = argparse.Namespace(quick=False, options={}, strengths=[-1.0, 0.0, 1.0], folder=tmp_path)
    task, given = slider.sliders()[name]
    found = slider.measured(argparse.Namespace(content="0"), task, given, options=options)
    assert '"action": "both"' in made[0]
    assert [strength for strength, _ in drawn] == [-1.0, 0.0, 1.0]
    assert set(found) == {"method", "seconds", "-1", "0", "1"}
    assert drawn[0][1] == drawn[1][1] == drawn[2][1]
    rows = drawn[0][1]
    assert all(slider.STYLE in row.prompt for row in rows["named"])
    assert not any(slider.STYLE in row.prompt for row in rows["unnamed"])
    assert not {row.prompt for row in rows["unnamed"]} & {text for pair in prompt_pairs(task.targets) for text in pair}
    assert len(rows["unnamed"]) > 80


def test_a_share_has_wilsons_interval(slider: ModuleType) -> None:
    assert slider.share([True] * 8 + [False] * 2) == [0.8, 0.4902, 0.9433]
