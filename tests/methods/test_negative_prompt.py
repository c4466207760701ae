"""The negative prompt stands where the empty one stood."""

from __future__ import annotations

import torch
from torch import Tensor

from erase.methods.negative_prompt import NegativePrompt
from erase.models import Condition, Model
from erase.sampling.guides import PromptBatch
from erase.task import Target, Task

TASK = Task((Target("noto", "style", synonyms=("blob",)), Target("firefox", "style")))


def asked(model: Model, method: NegativePrompt, strength: float) -> list[Tensor]:
    """The conditions that the network is asked for."""
    states = model.encode(["", "a cat"]).states
    batch = PromptBatch(("a cat",), Condition(states[1:]), Condition(states[:1]), 3.0)
    seen: list[Tensor] = []

    def ask(conditions: list[Condition]) -> list[Tensor]:
        seen.extend(one.states for one in conditions)
        return seen

    guided = method.guide(model, TASK, strength=strength).begin(None, batch)
    combined = guided.predict(ask, 0)  # type: ignore[arg-type]
    torch.testing.assert_close(combined, seen[0] + 3.0 * (seen[1] - seen[0]))
    return seen


def test_guidance_starts_from_the_targets_words(model: Model) -> None:
    negative, prompted = asked(model, NegativePrompt(), 1.0)
    expected = model.encode(["noto, blob, firefox", "a cat", ""]).states
    torch.testing.assert_close(negative[0], expected[0])
    torch.testing.assert_close(prompted[0], expected[1])
    half, _ = asked(model, NegativePrompt(), 0.5)
    torch.testing.assert_close(half[0], (expected[0] + expected[2]) / 2)
    assert not torch.allclose(expected[0], expected[2])


def test_a_text_of_ones_own_takes_their_place(model: Model) -> None:
    negative, _ = asked(model, NegativePrompt(text="a bomb"), 1.0)
    torch.testing.assert_close(negative[0], model.encode(["a bomb"]).states[0])
