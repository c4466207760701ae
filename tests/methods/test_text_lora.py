"""Text-only training: its loss by hand, its optimum by least squares, and that no network is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import BadOption
from erase.export.lora import lora
from erase.methods.closed_form.phrasings import tell
from erase.methods.closed_form.states import Pairs
from erase.methods.text_lora import States, TextLoRA, states_of, text_loss, unit_of
from erase.methods.training.denoiser import Denoiser
from erase.models import Model
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.trained import NEW, OLD, STYLE, predictions

KEEP = "a dog in twemoji style"
KEPT = Task(STYLE.targets, keeps=(f"prompt:{KEEP}",))
OWN = TextLoRA(steps=150, learning_rate=1e-2, batch=64, rank=8, phrasings="own")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_states(pairs: int, kept: int, width: int) -> States:
    return States(random(pairs, width, seed=1), random(pairs, width, seed=2), random(kept, width, seed=3))


def applied(matrix: list[list[float]], vector: list[float]) -> list[float]:
    return [sum(entry * value for entry, value in zip(row, vector, strict=True)) for row in matrix]


def test_the_loss_is_what_each_row_puts_out_against_what_its_anchor_did() -> None:
    weight, up, down, states = random(3, 5, seed=4), random(3, 2, seed=5), random(2, 5, seed=6), some_states(4, 6, 5)
    changed = [
        [weight[i, j].item() + sum(up[i, k].item() * down[k, j].item() for k in range(2)) for j in range(5)]
        for i in range(3)
    ]
    erased = held = 0.0
    for old, new in zip(states.old.tolist(), states.new.tolist(), strict=True):
        pairs = zip(applied(changed, old), applied(weight.tolist(), new), strict=True)
        erased += sum((now - wanted) ** 2 for now, wanted in pairs) / (4 * 3)
    for kept in states.kept.tolist():
        pairs = zip(applied(changed, kept), applied(weight.tolist(), kept), strict=True)
        held += sum((now - before) ** 2 for now, before in pairs) / (6 * 3)
    found = text_loss(weight, up, down, states=states, keep_weight=2.5)
    assert found.item() == pytest.approx(erased + 2.5 * held, rel=1e-12)


def test_its_unit_is_the_loss_of_a_weight_to_which_nothing_is_added() -> None:
    weight, states = random(3, 5, seed=4), some_states(4, 6, 5)
    nothing = text_loss(weight, torch.zeros(3, 1).double(), random(1, 5, seed=6), states=states, keep_weight=7.0)
    assert unit_of(weight, states) == pytest.approx(nothing.item(), rel=1e-12)


def test_each_state_becomes_the_anchors_at_its_own_place_from_the_first_that_differs(model: Model) -> None:
    states = states_of(model, tell(model, KEPT, phrasings="own"), work=RunContext())["tokens"]
    encoding = model.encode([OLD, NEW, "", KEEP])
    first = int((encoding.ids[0] != encoding.ids[1]).nonzero()[0])
    assert first > 1
    torch.testing.assert_close(states.old, encoding.states[0, first:])
    torch.testing.assert_close(states.new, encoding.states[1, first:])
    torch.testing.assert_close(states.kept, encoding.states[2:].flatten(0, 1))


def test_of_more_states_some_are_taken_and_stay_paired(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tell(model, KEPT)
    whole = states_of(model, told, work=RunContext())["tokens"]
    monkeypatch.setattr("erase.methods.text_lora.STATES", 20)
    few = states_of(model, told, work=RunContext())["tokens"]
    assert 12 <= len(few.old) <= 20 < len(whole.old)
    assert 12 <= len(few.kept) <= 20 < len(whole.kept)
    places = [int((whole.old == row).all(1).nonzero()[0]) for row in few.old]
    assert torch.equal(whole.new[places], few.new)


def ideal(weight: Tensor, states: States) -> Tensor:
    """The best change of a weight at any rank, by least squares over both terms of the loss."""
    old = states.old.double() / len(states.old) ** 0.5
    wanted = (states.new - states.old).double() @ weight.double().T / len(states.old) ** 0.5
    kept = states.kept.double() / len(states.kept) ** 0.5
    rows, aims = torch.cat([old, kept]), torch.cat([wanted, torch.zeros(len(kept), len(weight)).double()])
    return torch.linalg.lstsq(rows, aims, driver="gelsd").solution.T


def losses(model: Model, change: Mapping[str, Tensor], states: States) -> float:
    """The method's loss in float64, of any changes of the weights."""
    found = []
    for name, delta in change.items():
        weight = model.weight(name).double()
        erased = (states.old.double() @ (weight + delta).T - states.new.double() @ weight.T).square().mean()
        held = (states.kept.double() @ delta.T).square().mean()
        found.append((erased + held) / unit_of(weight, states))
    return float(torch.stack(found).mean())


def test_it_comes_near_what_least_squares_reach(model: Model) -> None:
    """From 1, where nothing is added, most of the way down to the optimum, which no rank and no step can beat."""
    states = states_of(model, tell(model, KEPT, phrasings="own"), work=RunContext())["tokens"]
    edit = replace(OWN, rank=64, steps=400)(model, KEPT)
    trained = {name: edit.change(name, model.weight(name)) for name in edit.touches}
    best = losses(model, {name: ideal(model.weight(name), states) for name in edit.touches}, states)
    assert losses(model, {name: 0 * delta for name, delta in trained.items()}, states) == pytest.approx(1.0, rel=1e-6)
    assert best <= losses(model, trained, states) < best + 0.05 * (1 - best)


def test_it_brings_the_target_to_its_anchor_and_holds_the_keep(model: Model) -> None:
    edit = OWN(model, KEPT)
    aim, old, kept = predictions(model, NEW), predictions(model, OLD), predictions(model, KEEP)
    assert (predictions(model, OLD, edit) - aim).norm() < 0.5 * (old - aim).norm()
    assert (predictions(model, KEEP, edit) - kept).norm() < 0.5 * (old - aim).norm()


def test_no_network_is_asked_and_no_image_made(model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*given: Any, **more: Any) -> Any:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(Denoiser, "of", refuse)
    monkeypatch.setattr(Model, "pipeline", refuse)
    assert replace(OWN, steps=2)(model, KEPT, work=RunContext(tmp_path)).touches
    assert json.loads((tmp_path / "cost.json").read_text(encoding="utf-8"))["evaluations"] == 0


@pytest.mark.parametrize(
    "family", ["stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl", "stable-diffusion-3", "flux"]
)
def test_in_every_family_it_changes_all_that_sees_text_alone(family: str, family_model: Opener) -> None:
    model = family_model(family)
    edit = replace(OWN, steps=60, rank=2)(model, KEPT)
    sites = {site.name: site for site in model.sites() if site.reads != "stream"}
    assert set(edit.touches) == set(sites)
    assert edit.rank <= 2
    for one in edit.low_rank:
        assert not one.down[:, sites[one.site].width :].any()
        assert one.down[:, : sites[one.site].width].any()
    found = states_of(model, tell(model, KEPT, phrasings="own"), work=RunContext())
    for reads, states in found.items():
        changes = {name: edit.change(name, model.weight(name)) for name in edit.touches if sites[name].reads == reads}
        cut = {name: change[:, : sites[name].width] for name, change in changes.items()}
        for name, change in cut.items():
            weight = model.weight(name)[:, : sites[name].width].double()
            erased = (states.old.double() @ (weight + change).T - states.new.double() @ weight.T).square().mean()
            assert erased < 0.9 * unit_of(weight, states), name


def test_it_ships_as_a_lora_of_its_own_rank(model: Model, tmp_path: Path) -> None:
    edit = replace(OWN, rank=3)(model, KEPT)
    with safe_open(lora(model, edit, tmp_path / "text.safetensors", loss=0), framework="pt") as file:
        downs = [file.get_tensor(key) for key in list(file.keys()) if key.endswith("lora_down.weight")]
    assert len(downs) == len(edit.touches)
    assert {len(down) for down in downs} == {3}


def test_several_targets_are_in_one_adapter(model: Model) -> None:
    targets = (*STYLE.targets, Target("mono", "style", anchor="blob", prompts=("a cat in {} style",)))
    edit = replace(OWN, steps=250)(model, Task(targets, KEPT.keeps))
    aim = predictions(model, NEW)
    for text in (OLD, "a cat in mono style"):
        before = predictions(model, text)
        assert (predictions(model, text, edit) - aim).norm() < 0.6 * (before - aim).norm()


def test_a_run_that_was_killed_ends_in_the_same_edit(model: Model, tmp_path: Path) -> None:
    def kill(text: str, done: int, total: int, **words: str) -> None:
        if text == "training" and done == 3:
            raise KeyboardInterrupt

    small = replace(OWN, steps=6)
    whole: Edit = small(model, KEPT)
    with pytest.raises(KeyboardInterrupt):
        small(model, KEPT, work=RunContext(tmp_path, report=kill, seconds=0.0))
    assert (tmp_path / "checkpoint.safetensors").is_file()
    assert small(model, KEPT, work=RunContext(tmp_path)).content == whole.content


@pytest.mark.parametrize("rows", [0, 3])
def test_targets_that_read_as_their_anchors_are_told(model: Model, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Words that a tokenizer does not know may all be one token to it."""
    states, numbers = random(rows, model.sites()[0].width, seed=1).float(), torch.zeros(rows, dtype=torch.long)
    same = {"tokens": Pairs(states, states, numbers)}
    monkeypatch.setattr("erase.methods.text_lora.paired_states", lambda *given: same)
    with pytest.raises(BadOption, match="read as what they become"):
        OWN(model, KEPT)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rank": 0}, "rank"),
        ({"keep_weight": -1.0}, "keep_weight"),
        ({"batch": 0}, "batch"),
        ({"phrasings": "some"}, "phrasings"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        TextLoRA(**options)
