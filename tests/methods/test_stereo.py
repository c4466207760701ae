"""STEREO against its paper's equations, what its search finds, and what it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.context import RunContext
from erase.errors import BadOption, TrainingFailed
from erase.methods.stereo import Stereo
from erase.methods.training.pictures import Noised
from erase.methods.training.search import Inverter, Learning
from erase.methods.training.session import Session
from erase.models import Condition, Model
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions, seen

CLIPS = ("stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3")
SEARCH: dict[str, Any] = {"rounds": 2, "search_steps": 3, "inversion_steps": 3, "inversion_batch": 2, "tokens": 2}


def test_the_aim_is_the_compositional_guidance_number_by_number() -> None:
    empty, anchor, name, first, second = seen(5)
    got = Stereo(eta=3.0, anchor_scale=0.5).aim(empty, torch.stack([name, first, second]), anchor=anchor)
    for place in range(empty.numel()):
        e_0, e_a, *negated = (float(one.flatten()[place]) for one in (empty, anchor, name, first, second))
        mean = sum(one - e_0 for one in negated) / 3
        assert float(got.flatten()[place]) == pytest.approx(e_0 + 0.5 * (e_a - e_0) - 3.0 * mean, rel=1e-12, abs=1e-12)


def inverter(model: Model, task: Task = STYLE, learning: Learning | None = None) -> Inverter:
    session = Session.start(Stereo(**FEW, **SEARCH), model, task, work=None)
    bank = session.bank(session.plan((text, (anchor,)) for text, anchor in session.asked))
    return Inverter(session, bank, learning or Learning(2, 40, 4, 0.02))


@torch.no_grad()
def shown(found: Inverter, tokens: Tensor) -> float:
    """How far the network is from the concept's pictures with soft tokens in the prompt."""
    given = found.condition(OLD, tokens)
    clean = found.bank.clean.repeat(8, 1, 1, 1)
    noised = Noised.of(found.session.denoiser, clean, torch.Generator().manual_seed(4))
    asked = Condition.stack([given] * len(clean))
    predicted = found.session.denoiser.predict(noised.inputs, noised.times, asked)
    return float((predicted - noised.truth).square().mean())


@pytest.mark.parametrize("family", CLIPS)
def test_learned_tokens_bring_the_concept_back_better_than_those_they_start_as(without_t5: Opener, family: str) -> None:
    made = inverter(without_t5(family))
    start = made.start("art")
    assert shown(made, made.learned(STYLE.targets[0], start, seed=0, said="noto")) < shown(made, start)


@pytest.mark.parametrize("family", CLIPS)
def test_soft_tokens_that_are_the_names_own_embeddings_read_as_the_name(without_t5: Opener, family: str) -> None:
    model = without_t5(family)
    made = inverter(model)
    ids = made.reader.tokenizer("noto", add_special_tokens=False)["input_ids"]
    made.learning = replace(made.learning, tokens=len(ids))
    found, expected = made.condition(OLD, made.start("noto")), model.encode([OLD]).conditions()[0]
    torch.testing.assert_close(found.states, expected.states, rtol=1e-4, atol=1e-4)
    assert (found.pooled is None) == (family == "stable-diffusion")
    if found.pooled is not None:
        torch.testing.assert_close(found.pooled, expected.pooled, rtol=1e-4, atol=1e-4)


def test_every_prompt_is_asked_by_its_name_and_by_its_own_targets_tokens(model: Model) -> None:
    task = Task((Target("noto", "style", synonyms=("google",)), Target("José Mono", "style")))
    made = inverter(model, task)
    width = made.start("art").shape[-1]
    found = {"noto": [torch.zeros(2, width)], "José Mono": [torch.ones(2, width), torch.zeros(2, width)]}
    conditions = made.conditions(found)
    assert {len(conditions[text]) for text in conditions if "José" in text} == {3}
    assert {len(conditions[text]) for text in conditions if "José" not in text} == {2}


def test_training_goes_from_the_models_own_weights_and_not_from_the_searchs(model: Model) -> None:
    options = FEW | SEARCH | {"steps": 1, "search_rate": 0.05, "learning_rate": 1e-6}
    largest = max(float(delta.abs().max()) for delta in Stereo(**options)(model, STYLE).deltas.values())
    assert 0 < largest < 1e-5


def test_target_and_anchor_become_alike(model: Model) -> None:
    options = MANY | SEARCH | {"layers": "x-strict", "eta": 0.0}
    edit = Stereo(**options)(model, STYLE)
    before, after = (float((predictions(model, OLD, one) - predictions(model, NEW)).norm()) for one in (None, edit))
    assert after < 0.9 * before


def test_a_search_that_is_done_is_not_made_again(model: Model, tmp_path: Path) -> None:
    said: list[str] = []

    def report(text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        said.append(text)

    method = Stereo(**FEW, **SEARCH)
    first = method(model, STYLE, work=RunContext(tmp_path, report=report))
    assert any(one.startswith("search") for one in said)
    said.clear()
    again = method(model, STYLE, work=RunContext(tmp_path, report=report))
    assert not any(one.startswith("search") for one in said)
    assert again.content == first.content
    replace(method, eta=2.0)(model, STYLE, work=RunContext(tmp_path, report=report))
    assert any(one.startswith("search") for one in said)


def test_a_search_that_runs_away_is_told_with_what_to_try(model: Model) -> None:
    with pytest.raises(TrainingFailed, match="search_rate"):
        Stereo(**FEW, **SEARCH | {"search_rate": 1e30, "search_steps": 4})(model, STYLE)


@pytest.mark.parametrize(
    "options", [{"eta": -1.0}, {"anchor_scale": -1.0}, {"rounds": 0}, {"search_rate": 0.0}, {"tokens": 0}]
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        Stereo(**options)
