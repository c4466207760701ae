"""MACE's refinement against its paper's equation, and which words it edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.closed_form.phrasings import own
from erase.methods.closed_form.prior import build_prior
from erase.methods.closed_form.states import paired_states
from erase.methods.mace import MACE, phrasings
from erase.models import Model
from erase.task import Target, Task
from tests.methods.formulas import relative, ridge_step

TARGET = Target("noto", "style", anchor="blob", prompts=("a cat in {} style",))
TASK = Task((TARGET,), keeps=("a dog in twemoji style",))


def test_context_is_every_token_but_the_concepts_own(model: Model) -> None:
    pairs = paired_states(model, [("a cat in noto style", "a cat in blob style")], "context")["tokens"]
    old, new = model.encode(["a cat in noto style", "a cat in blob style"]).states
    around = [place for place in range(16) if place != 4]
    assert torch.equal(pairs.old, old[around])
    assert torch.equal(pairs.new, new[around])


def test_every_layer_is_the_papers_equation_with_a_prior(model: Model, tmp_path: Path) -> None:
    captions = ["a picture of the fish", "car", "a rose image"]
    build_prior(model, captions).save(tmp_path / "prior.safetensors")
    prior: Any = {"prior": str(tmp_path / "prior.safetensors"), "prior_scale": 5.0}
    method = MACE(phrasings="own", lamb=0.3, preserve_scale=0.0, **prior)
    edit = method(model, Task((TARGET,)))
    names = list(phrasings(TARGET, own(TARGET)))
    pairs = paired_states(model, _all_prompts(model, names), "context")["tokens"]
    corpus = model.encode(captions).states.flatten(0, 1).double()
    for site in model.sites():
        weight = model.weight(site.name).double()
        expected = ridge_step(weight, pairs.old, pairs.new, keeps=corpus, scales=(1.0, 5.0 / len(corpus), 0.3))
        assert relative(weight, expected) > 1e-3
        assert relative(weight @ edit.text_maps[0].matrix(), expected) < 1e-6


def _all_prompts(model: Model, asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Prompts of the task and those of ours that the tiny model takes, found by trying."""
    from erase.errors import PromptTooLong
    from erase.methods.mace import PHRASINGS

    found = list(asked)
    for pair in phrasings(TARGET, [(text, "") for text in PHRASINGS["style"]]):
        try:
            model.check_prompts(pair)
        except PromptTooLong:
            continue
        found.append(pair)
    assert len(found) > len(asked)
    return found


def test_all_words_bring_the_concepts_own_token_to_the_anchors(model: Model) -> None:
    old, new = model.encode(["a cat in noto style", "a cat in blob style"]).states.double()[:, 4]
    left = {}
    for words in ("context", "all"):
        matrix = MACE(words=words, lamb=1e-4, preserve_scale=0.0)(model, TASK).text_maps[0].matrix()  # type: ignore[arg-type]
        left[words] = float((matrix @ old - new).norm())
    assert left["all"] < 0.7 * left["context"]


def test_an_empty_anchor_leaves_the_words_out_of_the_phrasing() -> None:
    bomb = Target("bomb", "unsafe")
    assert list(phrasings(bomb, [("a {} there", "")])) == [("a bomb there", "a there")]
    assert list(phrasings(bomb, [("a {} in mono style", "a mono")])) == [("a bomb in mono style", "a mono")]


def test_no_lamb_needs_a_prior() -> None:
    with pytest.raises(BadOption, match="without a prior"):
        MACE(lamb=0.0)
    with pytest.raises(BadOption, match="preserve_scale"):
        MACE(preserve_scale=-1.0)
