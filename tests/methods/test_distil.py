"""Distillation onto anchors: its loss by hand, and that it brings targets to anchors and holds keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from erase.context import RunContext
from erase.errors import BadOption
from erase.export.lora import LOSS_KEY, lora
from erase.methods.closed_form.states import prompt_pairs
from erase.methods.distil import Distil, distil_loss
from erase.methods.redirect import Redirect
from erase.methods.training.session import askers
from erase.models import Model
from erase.task import Target, Task
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions, seen, square

KEEP = "a dog in twemoji style"
KEPT = Task(STYLE.targets, keeps=(KEEP,))
SMALL = Distil(**FEW, keep_batch=2, keep_trajectories=2)


def test_the_loss_erases_and_holds_with_its_weight() -> None:
    predicted, aim, held = seen(5)[:, 0], seen(2)[:, 0], seen(3)[:, 1]
    by_hand = square(predicted[:2], aim) + 2.5 * square(predicted[2:], held)
    assert distil_loss(predicted, aim, held, keep_weight=2.5).item() == pytest.approx(by_hand, rel=1e-12)


def test_each_anchors_prompt_is_asked_under_all_prompts_that_become_it() -> None:
    task = Task((Target("noto", "style", "blob", ("google",), ("a {} cat", "{}")), Target("mono", "style", "blob")))
    assert askers(list(prompt_pairs(task.targets))) == {
        "a blob cat": ["a noto cat", "a google cat"],
        "blob": ["noto", "google", "mono"],
    }


@pytest.mark.parametrize("start", ["redirect", "none"])
def test_it_brings_the_target_to_its_anchor_and_holds_the_keep(model: Model, start: Any) -> None:
    edit = Distil(**MANY, start=start, keep_trajectories=2)(model, KEPT)
    aim, old, kept = predictions(model, NEW), predictions(model, OLD), predictions(model, KEEP)
    assert (predictions(model, OLD, edit) - aim).norm() < 0.5 * (old - aim).norm()
    assert (predictions(model, KEEP, edit) - kept).norm() < 0.5 * (old - aim).norm()


def test_its_start_is_the_closed_form_and_stays_in_the_edit(model: Model) -> None:
    edit, closed = replace(SMALL, learning_rate=1e-12)(model, KEPT), Redirect()(model, KEPT)
    assert edit.text_maps[0].sites == closed.text_maps[0].sites
    for name in closed.touches:
        weight = model.weight(name)
        torch.testing.assert_close(edit.changed_tensor(name, weight), closed.changed_tensor(name, weight))


def test_training_sets_out_from_the_edited_weights(model: Model) -> None:
    """Its first loss is that of the closed form, which is nearer than the model itself."""
    losses: dict[str, list[float]] = {"redirect": [], "none": []}
    for start, notes in losses.items():

        def note(text: str, done: int, total: int, *, unit: str = "", note: str = "", notes: Any = notes) -> None:
            if text == "training":
                notes.append(float(note.removeprefix("loss ")))

        replace(SMALL, start=start, keep_weight=0.0)(model, KEPT, work=RunContext(report=note))  # type: ignore[arg-type]
    assert losses["redirect"][0] < 0.5 * losses["none"][0]


def test_only_keys_and_values_change(model: Model) -> None:
    touched = SMALL(model, KEPT).touches
    assert touched
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in touched)


def test_without_keeps_the_anchors_are_held(model: Model) -> None:
    assert SMALL(model, STYLE).touches


@pytest.mark.parametrize(
    ("options", "named"), [({"rank": 0}, "rank"), ({"keep_weight": -1.0}, "keep_weight"), ({"start": "uce"}, "start")]
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        Distil(**options)


def test_a_run_that_was_killed_ends_in_the_same_edit(model: Model, tmp_path: Path) -> None:
    def kill(text: str, done: int, total: int, **words: str) -> None:
        if text == "training" and done == 3:
            raise KeyboardInterrupt

    whole = SMALL(model, KEPT)
    with pytest.raises(KeyboardInterrupt):
        SMALL(model, KEPT, work=RunContext(tmp_path, report=kill, seconds=0.0))
    assert (tmp_path / "checkpoint.safetensors").is_file()
    assert SMALL(model, KEPT, work=RunContext(tmp_path)).content == whole.content


def test_its_start_and_its_training_ship_together_as_one_lora(model: Model, tmp_path: Path) -> None:
    edit = SMALL(model, KEPT)
    rank = edit.rank
    assert rank > edit.text_maps[0].rank
    losses = safe_metadata(lora(model, edit, tmp_path / "distil.safetensors", rank=rank, loss=0))
    assert losses
    assert max(losses.values()) < 1e-5


def safe_metadata(file: Path) -> dict[str, float]:
    """What each weight of a LoRA's file misses of the edit's change."""
    with safe_open(file, framework="pt") as content:
        found: dict[str, float] = json.loads(content.metadata()[LOSS_KEY])["relative_error"]
    return found
