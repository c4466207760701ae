"""The published loop of UnlearnDiffAtk, which ours is timed against (bench_attacks.py).

Written from its description (Zhang et al. 2024): at each of 50 times, from the last one of sampling to the first, 40
steps of Adam (rate 0.01, decay 0.1) on a simplex of words for each of the prefix's places, sampled straight through
with clipped gradients, each with new noise; then the likeliest words are read out, an image is drawn from them, and the
first one that the judge sees the target in, on two seeds as in ours, ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from erase.attacks.search.attack import Found, PromptAttack
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Vocabulary, in_front, listed, try_out
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.methods.training.inversion import place


@dataclass(frozen=True)
class Literal(PromptAttack):
    """The published loop; `tokens` in front, `times` of the schedule, `inner` steps at each."""

    shared: ClassVar[bool] = True

    tokens: int = 3
    times: int = 50
    inner: int = 40
    rate: float = 0.01
    decay: float = 0.1

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        edited, rows = victim.edited, [case.row for case in cases]
        found = try_out(victim, cases, ledger, propose=listed([[in_front(case, "")] for case in cases]))
        clean = victim.base.latents(rows)
        vocabulary = Vocabulary.of(edited.tokenizer)
        table = edited.reader.embeddings(vocabulary.ids)
        prompts = place(edited.tokenizer, [row.prompt for row in rows], [], count=self.tokens)
        generator = victim.generator("literal")
        logits = torch.rand(len(rows), self.tokens, len(vocabulary.words), generator=generator).log().neg()
        words = (logits / logits.sum(-1, keepdim=True)).requires_grad_(True)
        adam = torch.optim.Adam([words], lr=self.rate, weight_decay=self.decay)
        every = edited.denoiser.times // self.times
        for time in range(every // 2, edited.denoiser.times, every):
            active = [number for number, one in enumerate(found) if not one.seen]
            if not active:
                break
            chosen, part = torch.tensor(active), prompts.rows(torch.tensor(active))
            level = edited.denoiser.level(torch.full((len(active),), time))
            for _ in range(self.inner):
                noise = torch.randn(clean[chosen].shape, generator=generator)
                soft = straight_through(words[chosen], generator) @ table
                given = edited.reader.read(part.ids, soft, part.places)
                times = torch.full((len(active),), time)
                predicted = edited.denoiser.predict(level.noisy(clean[chosen], noise), times, given)
                truth = edited.denoiser.truth(clean[chosen], noise, times)
                loss = (predicted - truth).square().flatten(1).mean(1).sum()
                (words.grad,) = torch.autograd.grad(loss, [words])
                adam.step()
                with torch.no_grad():
                    words.copy_(simplex(words))
            ledger.charge(active, 3 * self.inner)
            texts = [vocabulary.text(words[number].argmax(-1).tolist()) for number in active]
            asked = [cases[number] for number in active]
            own = Ledger(2 * edited.image_cost, prompts=len(active))
            each = [[in_front(case, text)] for case, text in zip(asked, texts, strict=True)]
            for number, one in zip(active, try_out(victim, asked, own, propose=listed(each)), strict=True):
                found[number] = one
            ledger.add(active, own)
            victim.report("literal", time, edited.denoiser.times, unit="times")
        return found


def straight_through(words: Tensor, generator: torch.Generator) -> Tensor:
    """One word drawn for each place, as one-hot rows whose gradient, clipped to -1 .. 1, goes to its probabilities."""
    drawn = torch.multinomial(words.detach().flatten(0, 1), 1, generator=generator).view(words.shape[:2])
    hard = torch.nn.functional.one_hot(drawn, words.shape[-1]).float()
    through = words - words.detach()
    if through.requires_grad:
        through.register_hook(lambda gradient: gradient.clamp(-1, 1))
    return hard + through


def simplex(words: Tensor) -> Tensor:
    """The nearest point of the simplex, of each row (Held, Wolfe and Crowder 1974)."""
    ordered = words.sort(-1, descending=True).values
    excess = (ordered.cumsum(-1) - 1) / torch.arange(1, words.shape[-1] + 1)
    count = (ordered > excess).sum(-1, keepdim=True)
    return (words - excess.gather(-1, count - 1)).clamp(min=0)
