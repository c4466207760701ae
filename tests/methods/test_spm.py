"""SPM against its paper's equations, its anchors, and what its options promise."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from erase.edit import Edit
from erase.errors import BadOption
from erase.guide import Prompted, guide_of
from erase.methods._gate import openness
from erase.methods.spm import SPM, random_anchors, spm_loss
from erase.models import Condition, Model
from erase.steps import export
from tests.methods.trained import FEW, MANY, OLD, STYLE, predictions, seen, square


def test_the_loss_erases_and_holds() -> None:
    predicted, target, now, before = seen(4)
    expected = square(predicted, target) + 1000.0 * square(now, before)
    assert spm_loss(predicted, target, now, before, weight=1000.0).item() == pytest.approx(expected, rel=1e-12)


def test_anchors_are_as_long_as_their_prompts_and_unlike_them() -> None:
    states = torch.randn(2, 77, 768, generator=torch.Generator().manual_seed(0)) + 3.0
    anchors = random_anchors(Condition(states), 4, torch.Generator().manual_seed(1)).states
    assert anchors.shape == (8, 77, 768)
    lengths = anchors.flatten(1).norm(dim=1) / states.flatten(1).norm(dim=1).repeat_interleave(4)
    assert bool(((lengths > 0.8 - 1e-4) & (lengths < 1.2 + 1e-4)).all())
    assert lengths.std() > 0.05
    likeness = torch.nn.functional.cosine_similarity(anchors.flatten(1), states.flatten(1).repeat_interleave(4, 0))
    assert likeness.abs().max() < 0.03


def test_every_membrane_has_rank_one(model: Model) -> None:
    edit = SPM(**FEW)(model, STYLE)
    assert {one.up.shape[1] for one in edit.low_rank} == {1}
    assert all(one.up.any() for one in edit.low_rank)


@pytest.mark.slow
def test_it_steps_away_from_the_concept(model: Model) -> None:
    empty, prompted = predictions(model, ""), predictions(model, OLD)
    edit = SPM(**MANY, anchor_weight=0.0)(model, STYLE)
    target = empty - (prompted - empty)
    assert (predictions(model, OLD, edit) - target).norm() < 0.7 * (prompted - target).norm()


@pytest.mark.slow
def test_a_heavier_hold_moves_other_prompts_less(model: Model) -> None:
    before = predictions(model, "a dog")
    moved = [
        float((predictions(model, "a dog", SPM(**MANY, anchor_weight=weight)(model, STYLE)) - before).norm())
        for weight in (0.0, 1000.0)
    ]
    assert moved[1] < 0.7 * moved[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"anchors": 0}, "anchors"), ({"anchor_weight": -1.0}, "anchor_weight"), ({"eta": -1.0}, "eta")],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        SPM(**options)


def test_a_prompt_opens_the_gate_by_its_tokens_or_its_states(model: Model) -> None:
    assert openness(model, "a cat in noto style", ("noto",)) == 1.0
    assert openness(model, "noto", ("noto",)) == pytest.approx(1.0)
    states = model.encode(["a dog", "noto"]).states.double().flatten(1)
    alike = float(states[0] @ states[1] / states[0].norm() / states[1].norm())
    assert openness(model, "a dog", ("noto",)) == pytest.approx(max(alike, 0.0), abs=1e-5)


def test_the_gate_is_full_strength_where_open_and_less_elsewhere(model: Model) -> None:
    """An open gate draws what the membranes as weights draw; other prompts lie between that and the model itself."""
    edit = SPM(**FEW | {"learning_rate": 0.03})(model, STYLE)
    fixed = replace(edit, info=replace(edit.info, options={**edit.info.options, "gate": False}))
    assert (edit.gated, fixed.gated) == (True, False)

    def latents(edit: Edit | None, prompt: str) -> torch.Tensor:
        pipe, asked = model.pipeline(), Condition(model.encode(["", prompt]).states)
        guide = guide_of(edit, model)
        batch = Prompted((prompt,), asked.states[1:], asked.states[:1], 3.0)
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))

        def ask(states: Any) -> Any:
            return pipe.unet(torch.cat([noise] * 2), 500, encoder_hidden_states=torch.cat(list(states))).sample.chunk(2)

        weights = edit.apply(pipe) if edit and not edit.gated else contextlib.nullcontext()
        with torch.no_grad(), weights, guide.attached(pipe):
            return guide.begin(pipe, batch).predict(ask, 0)

    plain, whole, gate = (latents(one, "a dog") for one in (None, fixed, edit))
    assert 0 < (gate - plain).norm() < (whole - plain).norm()
    torch.testing.assert_close(latents(scaled_open(edit), OLD), latents(fixed, OLD), rtol=1e-3, atol=1e-4)


def scaled_open(edit: Edit) -> Edit:
    """The edit with the empty prompt among its words, so that its gate stands open for every prompt."""
    target = dict(edit.info.task["targets"][0]) | {"synonyms": [""]}
    return replace(edit, info=replace(edit.info, task={**edit.info.task, "targets": [target]}))


def test_an_export_as_weights_says_that_the_gate_is_fixed(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit = SPM(**FEW)(model, STYLE)
    export("patch", model, edit, target=tmp_path / "edit.safetensors")
    assert not caplog.records
    export("lora", model, edit, target=tmp_path / "lora.safetensors")
    assert "the gate of spm is fixed at full strength" in caplog.text
