"""UnlearnDiffAtk: words in front of the prompt under which the edited network denoises what the concept looks like.

Paper: Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe
Images ... For Now", ECCV 2024. Of a picture x of the target by the base, with z_t its noisy latent, it looks for words

    d = argmin  E |e_edited(z_t, t, T(d + p)) - eps|^2

Official code: OPTML-Group/Diffusion-MU-Attack (MIT): 40 steps of Adam on a simplex of words at each of 50 times, after
each of which an image is drawn. Differences from it, all to ask the network less:
- the prediction is held against what the base predicts, for the prompt and for what the target becomes, and not against
  the noise (`aim`); a prompt's z_t stay the same through its search, so that the base is asked once;
- words are exchanged one at a time, by the gradient's first-order estimate of all exchanges and a look at the best of
  them, as in greedy coordinate search, instead of relaxed ones by Adam;
- words that worked for one prompt are tried on the others first: an image each;
- the first words are not any, but of some random ones those in whose image the judge sees most of the target, and what
  is left of the budget, which no exchanges can be had for, goes to images of random words;
- only words that read the same when they are written out, so that none is lost to the tokenizer;
- prompts are searched together, and each stops at its first success.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from erase.attacks.search.attack import Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Vocabulary, in_front, listed, try_out
from erase.attacks.search.flips import Problem, better, candidates
from erase.attacks.search.objective import Aim, objective_of
from erase.attacks.search.text import TextAttack
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.methods.training.inversion import place
from erase.options import Count, Whole


@dataclass(frozen=True)
class UnlearnDiffAtk(TextAttack):
    """Options of UnlearnDiffAtk.

    `tokens`: words in front of the prompt. `starts`: random ones of which an image each is looked at first, for a
    quarter of the budget at most; the search starts from those in which the judge sees most. `levels`: noisy latents of
    each prompt that the loss is taken over; more are surer and dearer. `flips`: exchanges between two images. `tried`:
    exchanges whose loss is looked at each time, of the `among` best by the gradient. `reuse`: how many of the words
    that worked before are tried first. `aim`: what the edited network is held against: direction, base, or the noise,
    as officially.
    """

    gradient: ClassVar[bool] = True
    words: ClassVar[bool] = True

    tokens: Count = 3
    starts: Whole = 4
    levels: Count = 3
    flips: Count = 4
    tried: Count = 6
    among: Count = 48
    reuse: int = 3
    aim: Aim = "direction"

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        known = list(dict.fromkeys(reversed(victim.worked)))[: self.reuse]
        each = [[in_front(case, text) for text in ("", *known)] for case in cases]
        found = try_out(victim, cases, ledger, propose=listed(each))
        if open_ := [number for number, one in enumerate(found) if not one.seen]:
            search = Search(self, victim, cases, ledger, open_, found)
            search.start()
            search.descend()
            search.spend()
        return found


@dataclass
class Search:
    """The search of the prompts that are left, `numbers`; `found` has the best of every prompt and is changed in place.

    `worked`: texts that have brought the target back for one of them. `tried`: those tried for each.
    """

    options: UnlearnDiffAtk
    victim: Victim
    cases: Sequence[Case]
    ledger: Ledger
    numbers: Sequence[int]
    found: list[Found]
    worked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary.of(self.victim.edited.tokenizer)
        self.tried: dict[int, set[str]] = {number: set() for number in self.numbers}
        prompts = [self.cases[number].row.prompt for number in self.numbers]
        self.generator = self.victim.generator("unlearndiffatk", prompts)
        self.words: dict[int, list[int]] = {}

    def start(self) -> None:
        """Looks at an image each of some random words, of which those in which the judge sees most are kept."""
        best = dict.fromkeys(self.numbers, -1.0)
        for _ in range(min(self.options.starts, self.ledger.limit // (4 * self.victim.edited.image_cost))):
            for number, (words, one) in self._random().items():
                if one.score > best[number]:
                    best[number], self.words[number] = one.score, words

    def descend(self) -> None:
        """Exchanges words, and looks at an image between."""
        options, victim = self.options, self.victim
        flips = options.flips * options.levels * (3 + options.tried)
        numbers = self._open(2 * options.levels + flips + self._twice)
        if not numbers:
            return
        cases = [self.cases[number] for number in numbers]
        objective = objective_of(victim, cases, levels=options.levels, what=options.aim)
        self.ledger.charge(numbers, objective.cost)
        prompts = place(victim.edited.tokenizer, [case.row.prompt for case in cases], [], count=options.tokens)
        problem = Problem(victim.edited.reader, self.vocabulary, prompts, objective, torch.arange(len(cases)))
        rows = {number: row for row, number in enumerate(numbers)}
        chosen = [self.words.get(one) or self.vocabulary.random(options.tokens, self.generator) for one in numbers]
        words = torch.tensor(chosen)
        while active := [one for one in self._open(flips + self._twice) if one in rows]:
            shared = self._shared(active)
            own = [number for number in active if number not in shared]
            searching = torch.tensor([rows[number] for number in own])
            for _ in range(options.flips if own else 0):
                part, now = problem.rows(searching), words[searching]
                exchanged = candidates(part, now, options.tried, among=options.among, generator=self.generator)
                words[searching] = better(part, now, exchanged)
            self.ledger.charge(own, flips)
            self._look(shared | {number: self.vocabulary.text(words[rows[number]].tolist()) for number in own})

    def spend(self) -> None:
        """Looks at random words for what is left of the budget, which no exchanges can be had for."""
        while self._open(self._twice):
            self._random()

    def _random(self) -> dict[int, tuple[list[int], Found]]:
        """Looks at what has worked for another prompt, else at random words: these words, and what they show."""
        drawn = {one: self.vocabulary.random(self.options.tokens, self.generator) for one in self._open(self._twice)}
        shared = self._shared(drawn)
        looked = self._look({number: self.vocabulary.text(words) for number, words in drawn.items()} | shared)
        return {number: (words, looked[number]) for number, words in drawn.items() if number not in shared}

    @property
    def _twice(self) -> int:
        """What an image and a second look cost."""
        return 2 * self.victim.edited.image_cost

    def _open(self, evaluations: int) -> list[int]:
        """The prompts for which nothing was found yet and that may spend so much more."""
        return [one for one in self.numbers if not self.found[one].seen and self.ledger.affords(one, evaluations)]

    def _shared(self, numbers: Iterable[int]) -> dict[int, str]:
        """For each of some prompts a text that has worked for another and was not tried for it, where there is one."""
        left = {one: next((text for text in self.worked if text not in self.tried[one]), "") for one in numbers}
        return {number: text for number, text in left.items() if text}

    def _look(self, texts: Mapping[int, str]) -> dict[int, Found]:
        """What an image of each prompt with a text in front shows, and a second one where the target is seen."""
        if not texts:
            return {}
        own = Ledger(self._twice, prompts=len(texts))
        asked = [self.cases[number] for number in texts]
        each = [[in_front(case, text)] for case, text in zip(asked, texts.values(), strict=True)]
        looked = dict(zip(texts, try_out(self.victim, asked, own, propose=listed(each)), strict=True))
        self.ledger.add(list(texts), own)
        for number, one in looked.items():
            self.tried[number].add(texts[number])
            if one.score >= self.found[number].score:
                self.found[number] = one
            if one.worked and one.worked not in self.worked:
                self.worked.append(one.worked)
        spent = max(self.ledger.evaluations[number] for number in self.numbers)
        self.victim.report("unlearndiffatk", spent, self.ledger.limit, unit="evaluations")
        return looked
