"""Greedy coordinate search for words whose pooled text state is that of the plain prompt, without naming the target.

Paper: Yang et al., "MMA-Diffusion", CVPR 2024, whose attack on the text is GCG (Zou et al. 2023) on

    1 - cos(T(words), T(p)),    T the state at the end of the text

and, where the network is given a pooled state beside the tokens', on the same of that, added.
Its official code is under a licence that permits no derivatives; this is written from the equations. It carries a list
of targets, of which none is here. Differences from it: words are whole words that are read again as they were written;
exchanges are looked at a few at a time, not 512; every prompt is searched from several starts at once (`starts`), and
the judge sees the best of each. Only the text encoders are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, cosine_similarity

from erase.attacks.search.attack import Access, Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, Vocabulary, listed, try_out
from erase.attacks.search.flips import Problem, better, candidates
from erase.attacks.search.text import TextAttack
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.methods.training.inversion import place
from erase.models import Condition
from erase.options import Count


@dataclass(frozen=True)
class GCG(TextAttack):
    """Options of the greedy coordinate search.

    `tokens`: words of the prompt. `steps`: exchanges. `tried`: exchanges that are looked at in a step, of the `among`
    best by the gradient. `starts`: searches of each prompt, the best words of each of which are drawn.
    `encoder`: whose text encoders.
    """

    access: ClassVar[Access] = "text encoder"
    words: ClassVar[bool] = True

    tokens: Count = 10
    steps: Count = 40
    tried: Count = 16
    among: Count = 128
    starts: Count = 4
    encoder: Literal["base", "edited"] = "edited"

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        side = victim.edited if self.encoder == "edited" else victim.base
        vocabulary = Vocabulary.of(side.tokenizer, without=victim.words)
        texts = [case.row.prompt for case in cases]
        tokens = min(self.tokens, int(side.tokenizer.model_max_length) - 2)
        with torch.no_grad():
            aims = side.reader.read(place(side.tokenizer, texts, [], count=0).ids)
        last = aims.states[torch.arange(len(texts)), ends(side.tokenizer, texts)]
        which = torch.arange(len(cases)).repeat_interleave(self.starts)
        prompts = place(side.tokenizer, [""] * len(which), [], count=tokens)

        def losses(given: Condition, rows: Tensor) -> Tensor:
            loss = 1 - cosine_similarity(given.states[:, tokens + 1], last[rows], dim=1)
            if given.pooled is not None and aims.pooled is not None:
                loss = loss + 1 - cosine_similarity(given.pooled, aims.pooled[rows], dim=1)
            return loss

        problem = Problem(side.reader, vocabulary, prompts, losses, which)
        words, loss = self._searched(problem, tokens, generator=victim.generator("gcg", texts))
        each = []
        for number, case in enumerate(cases):
            own = slice(number * self.starts, (number + 1) * self.starts)
            order = loss[own].argsort()
            each.append([Candidate(vocabulary.text(one), case.row.seed) for one in words[own][order].tolist()])
        return try_out(victim, cases, ledger, propose=listed(each))

    def _searched(self, problem: Problem, tokens: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Each start's best words, [rows, tokens], and their loss, [rows]."""
        rows = torch.arange(len(problem.which))
        words = torch.randint(len(problem.vocabulary.words), (len(rows), tokens), generator=generator)
        best, least = words, problem.loss(words, rows)
        for _ in range(self.steps):
            exchanged = candidates(problem, words, self.tried, among=self.among, generator=generator)
            words = better(problem, words, exchanged)
            loss = problem.loss(words, rows)
            best = torch.where((loss < least)[:, None], words, best)
            least = least.minimum(loss)
        return best, least


def ends(tokenizer: object, texts: Sequence[str]) -> Tensor:
    """Where each text's first end token stands, [texts]."""
    ids = place(tokenizer, texts, [], count=0).ids
    found: Tensor = (ids == tokenizer.eos_token_id).int().argmax(1)  # type: ignore[attr-defined]
    return found
