"""Concept inversion: soft tokens that bring a concept back, learned from pictures of it against a frozen network.

Papers: Gal et al., "An Image is Worth One Word", ICLR 2023; Pham et al., "Circumventing Concept Erasure Methods for
Text-to-Image Generative Models", ICLR 2024. With z the latents of pictures that show the concept, eps noise, v the soft
tokens in the place of the concept's name in a prompt p, T the text encoder and e the network:

    v = argmin  E |e(z_t, t, T(p with v)) - eps|^2

with what the network predicts in place of eps where it predicts something else. Attacks use it against an erased model,
and erasures that train against it use it while they train.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from erase.methods.training.denoiser import Denoiser
from erase.models import Condition


@dataclass(frozen=True)
class Places:
    """Prompts' token ids, [prompts, tokens], and where soft tokens stand in them, [prompts, count]."""

    ids: Tensor
    places: Tensor

    def rows(self, chosen: Tensor) -> Places:
        return Places(self.ids[chosen], self.places[chosen])


class Reader(Protocol):
    """What makes of prompts' tokens, with soft tokens at some places, the conditions that a network reads."""

    def read(self, ids: Tensor, tokens: Tensor, places: Tensor) -> Condition: ...


@dataclass(frozen=True)
class Examples:
    """Latents of pictures that show a concept, [pictures, ...], and the prompts that ask for it, one each."""

    latents: Tensor
    prompts: Places


def place(tokenizer: Any, prompts: Sequence[str], words: Sequence[str], *, count: int = 1) -> Places:
    """Prompts with `count` soft tokens in the place of the first of the words that each names, in front if of none.

    What does not fit is cut, as a pipeline cuts it.
    """
    length, start, end = int(tokenizer.model_max_length), tokenizer.bos_token_id, tokenizer.eos_token_id
    named = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    ids, places = [], []
    for prompt in prompts:
        found = re.search(rf"(?<!\w)(?:{named})(?!\w)", prompt, re.IGNORECASE) if named else None
        before, after = (prompt[: found.start()], prompt[found.end() :]) if found else ("", prompt)
        first, rest = (
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in (before, after)
        )
        first = first[: length - 2 - count]
        row = [start, *first, *[end] * count, *rest]
        row = [*row[: length - 1], end]
        pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ids.append(row + [pad] * (length - len(row)))
        places.append(list(range(1 + len(first), 1 + len(first) + count)))
    return Places(torch.tensor(ids), torch.tensor(places))


def learn_tokens(
    denoiser: Denoiser,
    reader: Reader,
    examples: Examples,
    *,
    start: Tensor,
    steps: int,
    batch: int = 4,
    rate: float = 5e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    whole: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    beside: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Soft tokens [count, width] after some steps of Adam from `start` down the loss of a batch of examples each.

    Nothing else gets a gradient, and the same seed gives the same tokens. `whole` makes a gradient that of all
    processes. `beside`: a loss of the tokens alone that is added.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = start.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([tokens], lr=rate)
    for step in range(steps):
        chosen = torch.randint(len(examples.latents), (batch,), generator=generator)
        clean = examples.latents[chosen]
        times = torch.randint(denoiser.times, (batch,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        noisy = denoiser.level(times).noisy(clean, noise)
        prompts = examples.prompts.rows(chosen)
        given = reader.read(prompts.ids, tokens.expand(batch, -1, -1), prompts.places)
        predicted = denoiser.predict(noisy, times, given)
        loss = (predicted - denoiser.truth(clean, noise, times)).square().mean()
        loss = loss if beside is None else loss + beside(tokens)
        (gradient,) = torch.autograd.grad(loss, [tokens])
        tokens.grad = whole(gradient)
        adam.step()
        progress(step + 1, steps)
    return tokens.detach()
