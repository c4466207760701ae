"""Which token of one text stands where a token of another does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True)
class Alignment:
    """For each position of the old text its counterpart in the new one, and whether both hold the same token."""

    becomes: tuple[int, ...]
    same: tuple[bool, ...]


def align(old: Sequence[int], new: Sequence[int], *, length: int) -> Alignment:
    """The alignment of two texts' token ids, start and end tokens included, and of the padding up to `length`.

    Exchanged words are matched from their last tokens; a word without counterpart becomes what follows it.
    """
    becomes: list[int] = []
    same: list[bool] = []
    for tag, begin, end, new_begin, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for position in range(begin, end):
            ahead = new_end - (end - position)
            becomes.append(new_begin if tag == "delete" else max(ahead, new_begin))
            same.append(tag == "equal")
    padding = length - len(old)
    becomes += [min(len(new) + number, length - 1) for number in range(padding)]
    return Alignment(tuple(becomes), (*same, *[True] * padding))
