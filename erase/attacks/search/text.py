"""Attacks that find prompts with more at hand than who merely asks, beside random words."""

from __future__ import annotations

from typing import Any, ClassVar

from erase.attacks.random_prefix import RandomPrefix
from erase.attacks.search.attack import Access, PromptAttack


class TextAttack(PromptAttack):
    """An attack that finds prompts; its control is as many random words in front."""

    access: ClassVar[Access] = "weights"

    @property
    def control(self) -> Any:
        return RandomPrefix()
