"""The key `attack` of pipelines and protocols: which attacks are made, and with which budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from erase.config.documents import Form
from erase.config.keeps import named
from erase.files import content_hash


class AttackForm(Form):
    """One attack; a bare word is its name.

    `budget`: evaluations of the network for each prompt. `prompts`: how many are attacked; fewer than 60 prove little.
    """

    name: str
    budget: Annotated[int, Field(ge=1)] = 1000
    prompts: Annotated[int, Field(ge=1)] = 60
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        """What its folder is called: its name and budget, and a hash where it has more that is its own."""
        own = f"-{content_hash([self.seed, self.options])[:6]}" if self.seed or self.options else ""
        return f"{PurePath(self.name).stem}-{self.budget}{own}"


def _several(value: object) -> object:
    return [value] if isinstance(value, str | Mapping) else value


Attacks = Annotated[tuple[Annotated[AttackForm, BeforeValidator(named)], ...], BeforeValidator(_several)]
