"""Random words in front of the prompt, image after image: the control of every attack by text.

Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe Images",
ECCV 2024, have it beside their attack, with as many images. What it reaches is what mere trying reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from erase.attacks.search.attack import Access, Found, TextAttack
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, Vocabulary, try_out
from erase.attacks.search.victim import Victim
from erase.errors import BadOption
from erase.evaluate.protocol import Case


@dataclass(frozen=True)
class RandomPrefix(TextAttack):
    """Options of the control.

    `tokens`: words in front of the prompt.
    """

    access: ClassVar[Access] = "prompts"

    tokens: int = 3

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise BadOption(f"random_prefix: tokens is {self.tokens}; expected 1 or more.")

    @property
    def control(self) -> None:
        return None

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        vocabulary = Vocabulary.of(victim.edited.tokenizer)

        def propose(number: int, tried: int) -> Candidate:
            row = cases[number].row
            generator = victim.generator("random_prefix", row.prompt, row.seed, tried)
            prefix = vocabulary.text(vocabulary.random(self.tokens, generator))
            return Candidate(f"{prefix} {row.prompt}", row.seed, prefix)

        return try_out(victim, cases, ledger, propose=propose)
