"""The weights that a prompt reaches, and the tables by which each family names its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["key", "value", "embed"]
Reads = Literal["tokens", "pooled", "stream"]


@dataclass(frozen=True)
class Site:
    """A weight that the prompt reaches: `<component>.<module>.weight`, of `rows` outputs and `columns` inputs.

    `reads` tells what it is multiplied with: the prompt's token states, its pooled state, or a mixed stream. The last
    `others` columns read what is no text at all. `biased`: a bias is added behind it, which is no part of what an edit
    aims at.
    """

    name: str
    role: Role
    reads: Reads
    rows: int
    columns: int
    others: int = 0
    biased: bool = False

    @property
    def component(self) -> str:
        return self.name.partition(".")[0]

    @property
    def key(self) -> str:
        return self.name.partition(".")[2]

    @property
    def width(self) -> int:
        """How many columns read the prompt: the leading ones."""
        return self.columns - self.others


@dataclass(frozen=True)
class Pattern:
    """A row of a family's table: which keys of its backbone are sites of one kind."""

    keys: re.Pattern[str]
    role: Role
    reads: Reads


def pattern(keys: str, role: Role, reads: Reads) -> Pattern:
    return Pattern(re.compile(keys), role, reads)


def find_sites(
    backbone: str, keys: Iterable[str], patterns: tuple[Pattern, ...], *, shape: Callable[[str], tuple[int, ...]]
) -> tuple[Site, ...]:
    """The sites among a backbone's keys, sorted by name."""
    there, found = set(keys), []
    for key in sorted(there):
        for row in patterns:
            if row.keys.fullmatch(key):
                rows, columns = shape(key)
                biased = f"{key.removesuffix('weight')}bias" in there
                found.append(Site(f"{backbone}.{key}", row.role, row.reads, rows, columns, biased=biased))
    return tuple(found)
