"""The plain prompt with one seed after another: how often the target comes back by itself.

What it finds is a seed, and success is counted on a fresh one; so its rate is that of no attack, and how often it finds
a seed at all says what as many tries reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erase.attacks.search.attack import Found, PromptAttack
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, try_out
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case


@dataclass(frozen=True)
class SeedSearch(PromptAttack):
    """It has no options."""

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        def propose(number: int, tried: int) -> Candidate:
            row = cases[number].row
            drawn = victim.generator("seed_search", row.prompt, row.seed, tried).initial_seed() % 2**31
            return Candidate(row.prompt, drawn if tried else row.seed)

        return try_out(victim, cases, ledger, propose=propose)
