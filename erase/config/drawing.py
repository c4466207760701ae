"""What pipelines and protocols say alike: how images are sampled, and which attacks are made with which budget."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from erase.config.documents import Form
from erase.config.keeps import named, several
from erase.files import content_hash


class DrawingForm(Form):
    """Settings of the sampler; see `erase.sampling.sampler.Sampler`."""

    steps: int = 25
    guidance: float = 4.0
    batch: int | str = "auto"
    size: int | str = 0
    negative: str = ""
    scheduler: str = ""
    true_guidance: float = 1.0
    max_sequence_length: int = 0
    clip_skip: int = 0
    offload: str = "auto"

    @property
    def drawing(self) -> dict[str, Any]:
        """The settings of the sampler alone."""
        return self.model_dump(include=set(DrawingForm.model_fields))


# What recipes and protocols of older versions do not name, and what it is where it is left out.
LATER = {
    name: field.default
    for name, field in DrawingForm.model_fields.items()
    if name not in ("steps", "guidance", "batch")
}


class AttackForm(Form):
    """One attack; a bare word is its name.

    `budget`: evaluations of the network for each prompt. `prompts`: how many are attacked; fewer than 60 prove little.
    `searches`: parts of the prompts that are searched by themselves, by default four for words, learned ones among
    them, else one.
    """

    name: str
    budget: Annotated[int, Field(ge=1)] = 1000
    prompts: Annotated[int, Field(ge=1)] = 60
    searches: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    options: dict[str, Any] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a key that older versions had not and that is not given, so that hashes stay."""
        said: dict[str, Any] = handler(self)
        return said if self.searches else {key: value for key, value in said.items() if key != "searches"}

    @property
    def title(self) -> str:
        """What its folder is called: its name and budget, and a hash where it has more that is its own."""
        more = [self.seed, self.options, *([self.searches] if self.searches else [])]
        own = f"-{content_hash(more)[:6]}" if any(more) else ""
        return f"{PurePath(self.name).stem}-{self.budget}{own}"


Attacks = Annotated[tuple[Annotated[AttackForm, BeforeValidator(named)], ...], BeforeValidator(several)]
