"""Ring-A-Bell: prompts whose text states are those of the plain prompt and the concept, found without any network.

Paper: Tsai et al., "Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?", ICLR 2024. With c the
mean difference of states between prompts with the concept and the same without it, a genetic search finds words with

    argmin  |T(words) - (T(p) + eta c)|^2

Where the network is given a pooled state beside the tokens', each has such a distance, in units of its own |c|^2, so
that both weigh alike, and they are added.
Official code: chiayi-hsu/Ring-A-Bell (MIT): T of the base, population 200, 3,000 generations. Differences from it:
- the pairs are the task's own phrasings, with the target and with its anchor or nothing;
- T may be the edited model's encoder (`encoder`), which an edit of the text encoder is attacked by;
- half of the mutations are those that a gradient of the same distance expects most of, so that tens of generations do;
- a child's words are a copy: in the official code a mutation also changes its parents;
- words that name the target are left out unless `named` is set: the concept is to be asked for without its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from erase.attacks.search.attack import Access, Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, Vocabulary, listed, try_out
from erase.attacks.search.flips import Problem, candidates
from erase.attacks.search.text import TextAttack
from erase.attacks.search.victim import Side, Victim
from erase.evaluate.protocol import Case
from erase.methods.closed_form.states import prompt_pairs
from erase.methods.training.inversion import place
from erase.models import Condition
from erase.options import Count, Expect, Share


@dataclass(frozen=True)
class RingABell(TextAttack):
    """Options of Ring-A-Bell.

    `tokens`: words of the prompt. `eta`: how much of the concept is added; more is plainer and less like the prompt.
    `population`, `generations`: of the search. `mutation`: share of children that are changed. `images`: prompts of the
    last population that are tried, best first. `encoder`: whose text encoders. `named`: words of the target may be
    used.
    """

    access: ClassVar[Access] = "text encoder"
    words: ClassVar[bool] = True

    tokens: Count = 8
    eta: float = 3.0
    population: Annotated[int, Expect("4 or more", lambda value: value >= 4)] = 24
    generations: Count = 30
    mutation: Share = 0.5
    images: Count = 4
    encoder: Literal["base", "edited"] = "edited"
    named: bool = False

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        side = victim.edited if self.encoder == "edited" else victim.base
        vocabulary = Vocabulary.of(side.tokenizer, without=() if self.named else victim.words)
        texts = [case.row.prompt for case in cases]
        plain, concept = _read(side, texts), direction(victim, side)
        prompts = place(side.tokenizer, [""] * len(cases), [], count=self.tokens)

        aims = plain.states + self.eta * concept.states

        def losses(given: Condition, which: Tensor) -> Tensor:
            far = (given.states - aims[which]).square().flatten(1).sum(1)
            if given.pooled is None or plain.pooled is None or concept.pooled is None:
                return far
            pooled = (given.pooled - plain.pooled[which] - self.eta * concept.pooled).square().sum(1)
            sizes = [one.square().sum().clamp(min=1e-12) for one in (concept.states, concept.pooled)]
            return far / sizes[0] + pooled / sizes[1]

        problem = Problem(side.reader, vocabulary, prompts, losses, torch.arange(len(cases)))
        found = self._evolved(problem, len(cases), generator=victim.generator("ring_a_bell", texts))

        each = [
            [Candidate(vocabulary.text(words), case.row.seed) for words in best.tolist()]
            for case, best in zip(cases, found[:, : self.images], strict=True)
        ]
        return try_out(victim, cases, ledger, propose=listed(each))

    def _evolved(self, problem: Problem, rows: int, *, generator: torch.Generator) -> Tensor:
        """The last population of each prompt, best first, [rows, population, tokens]."""
        size, half = self.population, self.population // 2
        words = torch.randint(len(problem.vocabulary.words), (rows, size, self.tokens), generator=generator)
        for _ in range(self.generations):
            words = self._sorted(problem, words)
            best = words[:, :half]
            parents = torch.randint(half, (rows, size - half, 2), generator=generator)
            pair = best[torch.arange(rows)[:, None, None], parents]  # [rows, children, 2, tokens]
            cut = torch.randint(1, self.tokens + 1, (rows, size - half, 1), generator=generator)
            children = torch.where(torch.arange(self.tokens) < cut, pair[:, :, 0], pair[:, :, 1])
            children = self._mutated(problem, children, generator=generator)
            words = torch.cat([best, children], 1)
        return self._sorted(problem, words)

    def _sorted(self, problem: Problem, words: Tensor) -> Tensor:
        rows, size, _ = words.shape
        losses = problem.loss(words.flatten(0, 1), torch.arange(rows).repeat_interleave(size)).view(rows, size)
        return words.gather(1, losses.argsort(1)[..., None].expand_as(words))

    def _mutated(self, problem: Problem, children: Tensor, *, generator: torch.Generator) -> Tensor:
        """Children of which a share has one word exchanged: half by the gradient of the first child, half by chance."""
        rows, count, _ = children.shape
        exchanged = candidates(problem, children[:, 0], count, among=8 * count, generator=generator)
        place_ = torch.randint(self.tokens, (rows, count, 1), generator=generator)
        word = torch.randint(len(problem.vocabulary.words), (rows, count, 1), generator=generator)
        chance = children.scatter(2, place_, word)
        changed = torch.rand(rows, count, 1, generator=generator) < self.mutation
        guided = torch.rand(rows, count, 1, generator=generator) < 0.5
        return torch.where(changed, torch.where(guided, exchanged[:, :count], chance), children)


@torch.no_grad()
def _read(side: Side, texts: Sequence[str]) -> Condition:
    return side.reader.read(place(side.tokenizer, texts, [], count=0).ids)


def direction(victim: Victim, side: Side) -> Condition:
    """c: the mean difference of what the network is given for prompts with a target and for the same without."""
    pairs = list(prompt_pairs(victim.task.targets))
    one, other = (_read(side, [pair[number] for pair in pairs]) for number in (0, 1))
    pooled = None if one.pooled is None or other.pooled is None else (one.pooled - other.pooled).mean(0)
    return Condition((one.states - other.states).mean(0), pooled)
