"""Random words in front of the prompt, image after image: the control of every attack by text.

Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe Images",
ECCV 2024, have it beside their attack, with as many images. What it reaches is what mere trying reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erase.attacks.search.attack import Found, PromptAttack
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, Vocabulary, try_out
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.options import Count


@dataclass(frozen=True)
class RandomPrefix(PromptAttack):
    """Options of the control.

    `tokens`: words in front of the prompt.
    """

    tokens: Count = 3

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        vocabulary = Vocabulary.of(victim.edited.tokenizer)

        def propose(number: int, tried: int) -> Candidate:
            row = cases[number].row
            generator = victim.generator("random_prefix", row.prompt, row.seed, tried)
            prefix = vocabulary.text(vocabulary.random(self.tokens, generator))
            return Candidate(f"{prefix} {row.prompt}", row.seed, prefix)

        return try_out(victim, cases, ledger, propose=propose)
