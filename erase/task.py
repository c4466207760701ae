"""What to erase, what it becomes, and what must stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from erase.errors import BadTask

Kind = Literal["style", "object", "unsafe", "identity"]
KINDS: tuple[Kind, ...] = ("style", "object", "unsafe", "identity")
_DOMAINS = {"style": "style", "object": "object", "unsafe": "object", "identity": "identity"}


@dataclass(frozen=True)
class Target:
    """One concept to erase.

    `anchor` is what it becomes ("" is the empty prompt), `synonyms` other words for it that are erased with it,
    `prompts` templates with `{}` in the concept's place, whose words around it a method may learn from.
    """

    name: str
    kind: Kind
    anchor: str = ""
    synonyms: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise BadTask("a target has no name; give the word that prompts use for it.")
        if self.kind not in KINDS:
            raise BadTask(f'target "{self.name}" is of kind "{self.kind}"; expected one of {", ".join(KINDS)}.')
        if _same(self.anchor) in map(_same, self.words):
            raise BadTask(
                f'target "{self.name}" has itself as its anchor "{self.anchor}"; name what it is to become instead.'
            )
        for template in self.prompts:
            if template.count("{}") != 1:
                raise BadTask(f'prompt "{template}" of target "{self.name}" must hold one {{}} for the concept.')

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)

    @property
    def domain(self) -> str:
        """The label of a prompt row that names concepts of this kind."""
        return _DOMAINS[self.kind]


@dataclass(frozen=True)
class Task:
    """Targets and keeps of one erasure; all targets are of one kind.

    Raises BadTask on no target, a repeated one, mixed kinds, or a target that is also kept.
    """

    targets: tuple[Target, ...]
    keeps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.targets:
            raise BadTask("the list of targets is empty; name at least one concept to erase.")
        repeated = [name for name, count in Counter(map(_same, self.names)).items() if count > 1]
        if repeated:
            raise BadTask(f'target "{repeated[0]}" stands twice in the list of targets; name it once.')
        domains = sorted({target.domain for target in self.targets})
        if len(domains) > 1:
            raise BadTask(f"targets of kinds {' and '.join(domains)} in one task; make one task for each kind.")
        kept = {_same(keep) for keep in self.keeps}
        both = [word for target in self.targets for word in target.words if _same(word) in kept]
        if both:
            raise BadTask(f'"{both[0]}" is a target and a keep; take it out of one of the two.')

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)

    @property
    def domain(self) -> str:
        return self.targets[0].domain


def _same(word: str) -> str:
    return " ".join(word.lower().split())
