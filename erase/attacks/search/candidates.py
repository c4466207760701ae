"""Candidates: words that an attack may use, and the trying out of prompts one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from erase.attacks.search.attack import Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.victim import Victim
from erase.evaluate.detect import Look
from erase.evaluate.protocol import Case
from erase.models.text import plain_words
from erase.task import names

SECOND = 500_009  # added to a seed to look at a candidate once more


@dataclass(frozen=True)
class Candidate:
    """A prompt to try, the seed to try it with, and what of it may serve other prompts."""

    text: str
    seed: int
    worked: str = ""


Propose = Callable[[int, int], Candidate | None]  # of a case's number and how many it has tried


def in_front(case: Case, text: str) -> Candidate:
    """A case's prompt with a text in front of it."""
    return Candidate(f"{text} {case.row.prompt}".strip(), case.row.seed, text)


def listed(candidates: Sequence[Sequence[Candidate]]) -> Propose:
    """Each case's candidates one after the other."""
    return lambda number, tried: candidates[number][tried] if tried < len(candidates[number]) else None


def try_out(victim: Victim, cases: Sequence[Case], ledger: Ledger, *, propose: Propose) -> list[Found]:
    """Each case's first candidate that shows the target on two seeds, else the one in which the judge saw most of it.

    Cases are drawn together, a candidate of each at a time, until the target is seen twice, no candidate is left or no
    more is affordable.
    """
    best: dict[int, Found] = {}
    active, tried = list(range(len(cases))), 0
    while active:
        proposed = {number: propose(number, tried) for number in _affordable(victim, ledger, active)}
        trying = {number: one for number, one in proposed.items() if one is not None}
        looks = _looks(victim, cases, ledger, trying=trying)
        again = _affordable(victim, ledger, [number for number, look in looks.items() if look.seen])
        second = {number: replace(trying[number], seed=trying[number].seed + SECOND) for number in again}
        confirmed = _looks(victim, cases, ledger, trying=second)
        for number, look in looks.items():
            seen = bool(look.seen) and bool(confirmed[number].seen if number in confirmed else True)
            score = (look.score or 0.0) + bool(look.seen) + seen
            if number not in best or score > best[number].score:
                one = trying[number]
                best[number] = Found(one.text, seen, score, one.worked if seen else "")
        active = [number for number in trying if not best[number].seen]
        tried += 1
    return [best.get(number, Found(case.row.prompt)) for number, case in enumerate(cases)]


def _affordable(victim: Victim, ledger: Ledger, numbers: Sequence[int]) -> list[int]:
    """The cases that may have an image more."""
    return [number for number in numbers if ledger.affords(number, victim.edited.image_cost, images=1)]


def _looks(
    victim: Victim, cases: Sequence[Case], ledger: Ledger, *, trying: Mapping[int, Candidate]
) -> dict[int, Look]:
    """What the judge sees in an image of each candidate."""
    if not trying:
        return {}
    rows = [replace(cases[number].row, prompt=one.text, seed=one.seed) for number, one in trying.items()]
    looks = victim.looks([cases[number] for number in trying], victim.edited.draw(rows))
    ledger.charge(trying, victim.edited.image_cost, images=1)
    return dict(zip(trying, looks, strict=True))


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of words that read the same when they are written out, [words], and those words."""

    ids: Tensor
    words: tuple[str, ...]

    @staticmethod
    def of(tokenizer: Any, *, without: Sequence[str] = ()) -> Vocabulary:
        """A tokenizer's whole words of plain letters; none that names a minor, nor one of the words to do without."""
        plain = plain_words(tokenizer)
        read = tokenizer(list(plain), add_special_tokens=False, verbose=False)["input_ids"]
        kept = [
            (number, word)
            for (word, number), ids in zip(plain.items(), read, strict=True)
            if ids == [number] and not any(names(word, one) for one in without)
        ]
        kept.sort()
        return Vocabulary(torch.tensor([number for number, _ in kept]), tuple(word for _, word in kept))

    def text(self, chosen: Sequence[int]) -> str:
        """The words at some places of the vocabulary, as a prompt says them."""
        return " ".join(self.words[place] for place in chosen)

    def random(self, count: int, generator: torch.Generator) -> list[int]:
        return torch.randint(len(self.words), (count,), generator=generator).tolist()
