"""SPM against its paper's equations, its anchors, and what its options promise."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from erase.edit import Edit, Gate
from erase.edit_file import METADATA_KEY
from erase.errors import BadOption
from erase.methods.guidance.gate import GatedMembranes, openness
from erase.methods.spm import SPM, random_anchors, spm_loss, spm_target
from erase.models import Condition, Model
from erase.run.steps import export
from erase.sampling.guides import PromptBatch, guide_of
from erase.task import Target, Task
from tests.methods.trained import FEW, MANY, OLD, STYLE, predictions, seen, square


def test_the_loss_erases_and_holds() -> None:
    predicted, target, now, before = seen(4)
    expected = square(predicted, target) + 1000.0 * square(now, before)
    assert spm_loss(predicted, target, now, before, weight=1000.0).item() == pytest.approx(expected, rel=1e-12)


def test_it_goes_away_from_where_it_goes_from() -> None:
    frozen = seen(3)
    empty, concept, anchor = frozen
    assert torch.equal(spm_target(frozen[:2], eta=0.5), empty - 0.5 * (concept - empty))
    assert torch.equal(spm_target(frozen, eta=0.5), anchor - 0.5 * (concept - anchor))


def test_an_anchored_target_goes_from_its_anchors_prompt(model: Model) -> None:
    task = Task((Target("noto", "style", anchor="blob", prompts=("a cat in {} style",)),))
    plain, anchored = (SPM(**FEW, anchored=on)(model, task) for on in (False, True))
    assert plain.content != anchored.content


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
    fixed = with_gate(edit, None)
    assert (edit.gated, fixed.gated) == (True, False)

    def latents(edit: Edit | None, prompt: str) -> torch.Tensor:
        pipe, asked = model.pipeline(), Condition(model.encode(["", prompt]).states)
        guide = guide_of(edit, model)
        batch = PromptBatch((prompt,), Condition(asked.states[1:]), Condition(asked.states[:1]), 3.0)
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))

        def ask(conditions: Any) -> Any:
            states = torch.cat([one.states for one in conditions])
            return pipe.unet(torch.cat([noise] * 2), 500, encoder_hidden_states=states).sample.chunk(2)

        weights = edit.apply(pipe) if edit and not edit.gated else contextlib.nullcontext()
        with torch.no_grad(), weights, guide.attached(pipe):
            return guide.begin(pipe, batch).predict(ask, 0)

    plain, whole, gate = (latents(one, "a dog") for one in (None, fixed, edit))
    assert 0 < (gate - plain).norm() < (whole - plain).norm()
    always_open = with_gate(edit, Gate("spm", ("noto", "")))
    torch.testing.assert_close(latents(always_open, OLD), latents(fixed, OLD), rtol=1e-3, atol=1e-4)
    both = always_open + with_gate(edit, Gate("spm", ("rose",)))
    assert 0 < (latents(both, "a dog") - latents(always_open, "a dog")).norm() < (gate - plain).norm() * 2
    rest = both + with_gate(edit, Gate("spm", ("rose",))).scaled(-1)
    torch.testing.assert_close(latents(rest, "a dog"), latents(always_open, "a dog"), rtol=1e-3, atol=1e-4)


def test_a_prompts_openness_holds_in_both_halves_of_guidance(model: Model) -> None:
    edit = SPM(**FEW)(model, STYLE)
    guide, prompts = guide_of(edit, model), (OLD, "a dog")
    assert isinstance(guide, GatedMembranes)
    states = model.encode(list(prompts)).states
    opened = [openness(model, prompt, ("noto",)) for prompt in prompts]
    assert opened[1] < opened[0] == 1.0
    for guidance, expected in ((3.0, opened * 2), (1.0, opened)):
        given = Condition(states)
        batch = PromptBatch(prompts, given, given, guidance)
        guide.begin(None, batch).predict(lambda asked: [one.states for one in asked], 0)
        assert guide.sets[0].shares.tolist() == pytest.approx(expected)


def with_gate(edit: Edit, gate: Gate | None) -> Edit:
    return replace(edit, low_rank=tuple(replace(one, gate=gate) for one in edit.low_rank))


def test_each_part_of_a_sum_keeps_its_gate(model: Model, tmp_path: Path) -> None:
    """Also where it is scaled, saved and loaded; what has no gate in it stays the same for every prompt."""
    one = SPM(**FEW)(model, STYLE)
    two = SPM(**FEW, seed=1)(model, Task((Target("cat", "object", "dog"),)))
    fixed = SPM(**FEW, gate=False)(model, STYLE)
    (one + two.scaled(0.5) + fixed).save(tmp_path / "sum.safetensors")
    both = Edit.load(tmp_path / "sum.safetensors")
    assert {gate.words: len(behind) for gate, behind in both.gates.items()} == {
        (STYLE.targets[0].name,): len(one.low_rank),
        ("cat",): len(two.low_rank),
    }
    assert both.ungated.low_rank[0].site == fixed.low_rank[0].site
    assert len(both.ungated.low_rank) == len(fixed.low_rank)
    guide = guide_of(both, model)
    assert isinstance(guide, GatedMembranes)
    assert [one.words for one in guide.sets] == [(STYLE.targets[0].name,), ("cat",)]


def test_a_gate_is_part_of_an_edits_identity(model: Model) -> None:
    """For it draws other images than the same weights without."""
    edit = SPM(**FEW)(model, STYLE)
    assert len({one.content for one in (edit, with_gate(edit, None), with_gate(edit, Gate("spm", ("rose",))))}) == 3


def test_an_edit_of_an_earlier_release_has_its_gate(model: Model, tmp_path: Path) -> None:
    """Which it told by the method's option alone."""
    edit = SPM(**FEW)(model, STYLE)
    edit.save(tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        said = json.loads(file.metadata()[METADATA_KEY])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del said["gates"]
    save_file(tensors, tmp_path / "old.safetensors", metadata={METADATA_KEY: json.dumps(said)})
    assert Edit.load(tmp_path / "old.safetensors").gates.keys() == edit.gates.keys()


def test_an_export_of_a_sum_says_that_its_gates_are_fixed(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit = SPM(**FEW)(model, STYLE)
    export("lora", model, edit + edit, target=tmp_path / "lora.safetensors")
    assert "the gate of spm is fixed at full strength" in caplog.text


def test_an_export_as_weights_says_that_the_gate_is_fixed(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit = SPM(**FEW)(model, STYLE)
    export("patch", model, edit, target=tmp_path / "edit.safetensors")
    assert not caplog.records
    export("lora", model, edit, target=tmp_path / "lora.safetensors")
    assert "the gate of spm is fixed at full strength" in caplog.text
