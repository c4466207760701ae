"""What of a task must stay, as a pipeline says it: concepts by kind, whole prompts, or those of a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from erase.config import documents
from erase.config.documents import Form
from erase.config.prompts import PromptSet, load_prompts
from erase.errors import BadPipeline
from erase.task import DOMAINS, KINDS, Keep, Kind, Target, asks_for
from erase.task import names as names_concept

Words = tuple[str, ...]


def named(value: object) -> object:
    """A bare word as the form it abbreviates: `noto` is `{name: noto}`."""
    return {"name": value} if isinstance(value, str) else value


def several(value: object) -> object:
    """One of what may be several, as a list of it."""
    return [value] if isinstance(value, str | Mapping) else value


class KeptSetForm(Form):
    """Some prompts of a set; `labels` maps a domain to the column of its file that names concepts of it."""

    name: str
    where: dict[str, Words] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)


class KeepsForm(Form):
    """What must stay: concepts by their kind, `words` being of the targets' kind, and whole prompts.

    `prompts` is a list of them, or a set, of which every prompt stays that names no target, or the words of its `axis`
    alone.
    """

    words: Words = ()
    style: Words = ()
    object: Words = ()
    identity: Words = ()
    unsafe: Words = ()
    prompts: Annotated[KeptSetForm | Words, BeforeValidator(named)] = ()
    axis: Annotated[Words, BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)] = ()

    @model_validator(mode="after")
    def _axis_of_something(self) -> KeepsForm:
        if self.axis and not isinstance(self.prompts, KeptSetForm):
            raise ValueError('"axis" needs a set, such as {prompts: emoji-square, axis: [style]}')
        return self

    @property
    def concepts(self) -> tuple[Keep | str, ...]:
        """The keeps that are named one by one."""
        kinds: tuple[Kind, ...] = ("style", "object", "identity", "unsafe")
        return (*self.words, *(Keep(word, kind) for kind in kinds for word in getattr(self, kind)))


@dataclass(frozen=True)
class Kept:
    """What of a set must stay, and what is to be said of it."""

    concepts: tuple[Keep, ...] = ()
    prompts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def kept_of_set(keeps: KeepsForm, targets: tuple[Target, ...]) -> Kept:
    """The prompts of a set that name no target, or the words of its axes that name none."""
    if not isinstance(keeps.prompts, KeptSetForm):
        return Kept(prompts=keeps.prompts)
    chosen = load_prompts(keeps.prompts.name, labels=keeps.prompts.labels)
    if not keeps.axis:
        lines = chosen.select(keeps.prompts.where)
        free = [line for line in lines if not any(asks_for(line.prompt, line.labels, target) for target in targets)]
        left_out = _left_out(chosen, len(lines) - len(free), "prompts", of=len(lines))
        return Kept(prompts=tuple(line.prompt for line in free), notes=(*chosen.notes, *left_out))
    for axis in keeps.axis:
        if axis not in DOMAINS or not chosen.words(axis):
            valid = [domain for domain in DOMAINS if chosen.words(domain)]
            raise BadPipeline(documents.wrong_key(axis, valid, where=f"task.keeps.axis, prompt set {chosen.name}"))
    words = [Keep(word, kind) for kind in KINDS if kind in keeps.axis for word in chosen.words(kind)]
    free_words = [keep for keep in words if not any(names_concept(keep.name, target) for target in targets)]
    left_out = _left_out(chosen, len(words) - len(free_words), "words", of=len(words))
    return Kept(concepts=tuple(free_words), notes=(*chosen.notes, *left_out))


def _left_out(chosen: PromptSet, count: int, what: str, *, of: int) -> tuple[str, ...]:
    return (f"keeps: {count} of {of} {what} of {chosen.name} name a target and are left out",) * bool(count)
