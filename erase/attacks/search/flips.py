"""Greedy coordinate search over words: one is exchanged at a time, by the gradient's guess and a look at the best.

As in HotFlip (Ebrahimi et al. 2018) and GCG (Zou et al. 2023): with E the words' embeddings and g the gradient of the
loss with respect to the embedding at a place, exchanging the word u there for v changes the loss by g . (E_v - E_u).
Where several encoders read a prompt, E is their embeddings side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from erase.attacks.search.candidates import Vocabulary
from erase.methods.training.inversion import Places
from erase.models import Condition, PromptReader

AT_ONCE = 64  # prompts read and predicted for together
Losses = Callable[[Condition, Tensor], Tensor]  # of many rows' condition and each row's prompt: [rows]


@dataclass(frozen=True)
class Problem:
    """Prompts with places for words in them, and the loss of what the network is given for them.

    `which` [rows] numbers the prompts as `losses` knows them.
    """

    reader: PromptReader
    vocabulary: Vocabulary
    prompts: Places
    losses: Losses
    which: Tensor

    def rows(self, chosen: Tensor) -> Problem:
        return replace(self, prompts=self.prompts.rows(chosen), which=self.which[chosen])

    @property
    def embeddings(self) -> Tensor:
        """Of the vocabulary's words, [words, width]."""
        return self.reader.embeddings(self.vocabulary.ids)

    def placed(self, words: Tensor) -> Tensor:
        """The embeddings of words of the vocabulary by their numbers."""
        return self.reader.embeddings(self.vocabulary.ids[words])

    @torch.no_grad()
    def loss(self, words: Tensor, rows: Tensor) -> Tensor:
        """The losses [candidates] of words [candidates, count] in the prompts of some rows [candidates]."""
        found = []
        for part in _parts(len(words)):
            prompts = self.prompts.rows(rows[part])
            given = self.reader.read(prompts.ids, self.placed(words[part]), prompts.places)
            found.append(self.losses(given, self.which[rows[part]]))
        return torch.cat(found)

    def gradient(self, words: Tensor) -> Tensor:
        """The gradients of each row's loss with respect to its words' embeddings, [rows, count, width]."""
        found = []
        for part in _parts(len(words)):
            prompts = self.prompts.rows(part)
            tokens = self.placed(words[part]).requires_grad_(True)
            loss = self.losses(self.reader.read(prompts.ids, tokens, prompts.places), self.which[part])
            found.append(torch.autograd.grad(loss.sum(), [tokens])[0])
        return torch.cat(found)


def _parts(count: int) -> list[Tensor]:
    return [torch.arange(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]


def candidates(problem: Problem, words: Tensor, count: int, *, among: int, generator: torch.Generator) -> Tensor:
    """Words [rows, count, places] with one exchanged in each, drawn from those that the gradient expects most of."""
    rows, places = words.shape
    table = problem.embeddings
    gradient = problem.gradient(words)
    gain = (gradient * table[words]).sum(-1, keepdim=True) - gradient @ table.T  # [rows, places, vocabulary]
    gain.scatter_(2, words[..., None], -torch.inf)
    top = gain.flatten(1).topk(min(among, gain[0].numel() - places)).indices  # best first
    order = torch.stack([torch.randperm(top.shape[1], generator=generator) for _ in range(rows)])
    drawn = order[:, : max(0, count - 1)].sort(1).values
    picked = top.gather(1, torch.cat([torch.zeros(rows, 1, dtype=torch.long), drawn], 1))  # the best one among them
    exchanged = words[:, None].repeat(1, picked.shape[1], 1)
    return exchanged.scatter(2, (picked // len(table))[..., None], (picked % len(table))[..., None])


def better(problem: Problem, words: Tensor, exchanged: Tensor) -> Tensor:
    """Each row's exchange of the least loss, [rows, places].

    The words as they were are not looked at: a step that goes up a little gets out of where every one would.
    """
    rows, count, _ = exchanged.shape
    losses = problem.loss(exchanged.flatten(0, 1), torch.arange(rows).repeat_interleave(count)).view(rows, count)
    return exchanged[torch.arange(rows), losses.argmin(1)]
