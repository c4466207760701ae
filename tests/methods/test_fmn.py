"""Forget-Me-Not against its paper's equation and the attention that diffusers itself computes."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from erase.errors import BadModel, BadOption
from erase.methods.fmn import FMN, attention_inputs, attention_to, fmn_loss, places
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.session import Session
from erase.models import Condition, Model
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.trained import FEW, MANY, OLD, STYLE

CHOSEN = torch.tensor([[False, True, True, False]])


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_loss_is_the_papers_equation_number_by_number() -> None:
    layer: Any = SimpleNamespace(heads=2, scale=0.5)
    pairs = [(double(1, 3, 6), double(1, 4, 6)), (double(1, 2, 6), double(1, 4, 6))]
    total = 0.0
    for queries, keys in pairs:
        for head in (slice(0, 3), slice(3, 6)):
            for query in queries[0]:
                scores = [math.exp(0.5 * float(query[head] @ key[head])) for key in keys[0]]
                total += sum((scores[token] / sum(scores)) ** 2 for token in (1, 2))
    got = fmn_loss([attention_to(layer, *pair, chosen=CHOSEN) for pair in pairs])
    assert got.item() == pytest.approx(math.sqrt(total), rel=1e-5)  # attention is taken in float32


@torch.no_grad()
def test_it_is_the_attention_that_the_network_computes(model: Model) -> None:
    denoiser = Denoiser.of(model)
    given = Condition.stack(model.encode([OLD]).conditions())
    with attention_inputs(denoiser.network) as seen:
        denoiser.predict(torch.ones(1, *denoiser.shape), torch.tensor([500]), given)
    assert seen
    for layer, queries, keys in seen.values():
        every = torch.ones(1, keys.shape[1], dtype=torch.bool)
        query, key = (layer.head_to_batch_dim(value) for value in (queries, keys))
        torch.testing.assert_close(
            attention_to(layer, queries, keys, chosen=every)[0], layer.get_attention_scores(query, key)
        )


def test_a_words_tokens_are_found_wherever_they_stand() -> None:
    assert places([9, 1, 2, 3, 1, 2, 8], [[1, 2]]) == [False, True, True, False, True, True, False]
    assert places([9, 1, 2, 8], [[2], [7]]) == [False, False, True, False]


@pytest.mark.parametrize("end", [False, True])
def test_the_targets_name_and_the_end_are_a_prompts_tokens(model: Model, end: bool) -> None:
    session = Session.start(FMN(**FEW), model, STYLE, work=None)
    found = FMN(end=end)._tokens(session, STYLE, OLD)
    part = model.encode([OLD, "noto"]).parts[0]
    word = part.ids[1, 1 : part.lengths[1] - 1]
    assert torch.equal(part.ids[0][found][: len(word)], word)
    assert int(found.sum()) == len(word) + end
    assert bool(found[part.lengths[0] - 1]) is end


@torch.no_grad()
def attended(model: Model, edit: Any = None) -> float:
    """The loss on noise under the target's prompt."""
    pipe = model.pipeline()
    if edit is not None:
        edit.apply(pipe)
    denoiser, session = Denoiser.from_pipe(model, pipe), Session.start(FMN(**FEW), model, STYLE, work=None)
    chosen = FMN()._tokens(session, STYLE, OLD).expand(4, -1)
    inputs = torch.randn(4, *denoiser.shape, generator=torch.Generator().manual_seed(3))
    with attention_inputs(denoiser.network) as seen:
        denoiser.predict(
            inputs, torch.tensor([900, 700, 500, 300]), Condition.stack(model.encode([OLD] * 4).conditions())
        )
    return float(fmn_loss([attention_to(*one, chosen=chosen) for one in seen.values()]))


def test_training_takes_attention_from_the_targets_tokens(model: Model) -> None:
    assert attended(model, FMN(**MANY)(model, STYLE)) < 0.5 * attended(model)


def test_queries_and_keys_alone_change(model: Model) -> None:
    task = Task((Target("cat", "object", synonyms=("kitty",)), Target("José Car", "object")))
    touched = {name for name, delta in FMN(**FEW)(model, task).deltas.items() if delta.any()}
    assert {name.rpartition("attn2.")[2] for name in touched} == {"to_q.weight", "to_k.weight"}


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_a_model_that_mixes_text_and_image_is_refused_by_name(family: str, family_model: Opener) -> None:
    with pytest.raises(BadModel, match=family):
        FMN(**FEW)(family_model(family), STYLE)


@pytest.mark.parametrize(("options", "named"), [({"layers": ""}, "layers"), ({"steps": 0}, "steps")])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        FMN(**options)
