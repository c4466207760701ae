"""A prompt's end with each of its tokens masked, as every family's encoders see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from erase.models import Model, masked_ends

PROMPT = "a cat in noto style"


@torch.no_grad()
def by_hand(pipe: Any, number: str, penultimate: bool) -> torch.Tensor:
    """States at the end by one encoder of the pipeline, each word's token in turn replaced by the token 0."""
    tokenizer, encoder = getattr(pipe, f"tokenizer{number}"), getattr(pipe, f"text_encoder{number}")
    first = int("CLIP" in type(encoder).__name__)  # T5 has no start token
    length = 77 if first else {"StableDiffusion3Pipeline": 256}.get(type(pipe).__name__, 512)
    length = min(length, tokenizer.model_max_length)
    ids = tokenizer(PROMPT, padding="max_length", max_length=length, return_tensors="pt").input_ids
    words = len(tokenizer(PROMPT).input_ids) - 1 - first
    ends = []
    for place in range(first, first + words):
        masked = ids.clone()
        masked[0, place] = 0
        output = encoder(masked, output_hidden_states=True)
        states = output.hidden_states[-2] if penultimate else output.last_hidden_state
        ends.append(states[0, first + words])
    return torch.stack(ends)


def test_each_token_is_masked_in_turn_for_the_encoders_of_one_part_alone(each_model: Model, each_pipe: Any) -> None:
    penultimate = each_model.family in ("stable-diffusion-xl", "stable-diffusion-3")
    expected: dict[str, Callable[[], list[torch.Tensor]]] = {
        "stable-diffusion": lambda: [by_hand(each_pipe, "", False)],
        "stable-diffusion-2": lambda: [by_hand(each_pipe, "", False)],
        "flux": lambda: [by_hand(each_pipe, "_2", False)],
        "stable-diffusion-xl": lambda: [torch.cat([by_hand(each_pipe, one, penultimate) for one in ("", "_2")], 1)],
        "stable-diffusion-3": lambda: [
            torch.cat([by_hand(each_pipe, one, penultimate) for one in ("", "_2")], 1),
            by_hand(each_pipe, "_3", False),
        ],
    }
    parts = expected[each_model.family]()
    assert len(parts) == len(each_model.encode([PROMPT]).parts)
    for number, part in enumerate(parts):
        found = masked_ends(each_pipe, PROMPT, number)
        torch.testing.assert_close(found[:, : part.shape[1]], part, rtol=0, atol=1e-5)
        assert not found[:, part.shape[1] :].any()  # zeros up to T5's width
        assert len({tuple(row.tolist()) for row in found}) == len(found)
