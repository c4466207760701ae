"""Plain guidance is what the papers say, and an edit of weights does not act while sampling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erase.edit import Edit, EditInfo
from erase.models import Condition, Model
from erase.sampling.guides import CFG, NoGuide, PromptBatch, guide_of, hooked


def batch(guidance: float) -> PromptBatch:
    given, empty = Condition(torch.ones(2, 3, 4)), Condition(torch.zeros(2, 3, 4))
    return PromptBatch(("a", "b"), given, empty, guidance)


def test_it_goes_from_the_empty_prediction_through_the_prompts() -> None:
    asked: list[list[Condition]] = []

    def ask(conditions: list[Condition]) -> list[Tensor]:
        asked.append(conditions)
        return [torch.full((2, 1), 1.0 + 2.0 * float(one.states.mean())) for one in conditions]

    assert CFG(batch(4.0)).predict(ask, 0).flatten().tolist() == [1.0 + 4.0 * (3.0 - 1.0)] * 2  # type: ignore[arg-type]
    assert len(asked[0]) == 2
    assert CFG(batch(1.0)).predict(ask, 0).flatten().tolist() == [3.0, 3.0]  # type: ignore[arg-type]
    assert len(asked[1]) == 1


def test_only_a_guidance_guides(model: Model) -> None:
    weights = Edit(EditInfo("uce", {}, {}, model.family, model.fingerprint))
    assert isinstance(guide_of(weights, model), NoGuide)
    assert isinstance(guide_of(None, model), NoGuide)


def test_hooks_are_gone_however_the_block_ends() -> None:
    layer = torch.nn.Linear(1, 1)
    plain = layer(torch.ones(1))
    with pytest.raises(KeyboardInterrupt), hooked([(layer, lambda module, inputs, output: output + 1)] * 2):
        assert torch.equal(layer(torch.ones(1)), plain + 1 + 1)
        raise KeyboardInterrupt
    assert torch.equal(layer(torch.ones(1)), plain)
