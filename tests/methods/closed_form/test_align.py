"""Tokens of one text and their counterparts in another."""

from __future__ import annotations

import pytest

from erase.methods.closed_form.states import align

START, END = 90, 91


def aligned(old: list[int], new: list[int]) -> tuple[int, ...]:
    return align([START, *old, END], [START, *new, END], length=8).becomes


@pytest.mark.parametrize(
    ("old", "new", "becomes"),
    [
        ([1, 2], [1, 2], (0, 1, 2, 3, 4, 5, 6, 7)),
        ([1, 2], [1, 5, 2], (0, 1, 3, 4, 5, 6, 7, 7)),  # a word put in: the rest moves on
        ([1, 2, 3], [1, 5, 3], (0, 1, 2, 3, 4, 5, 6, 7)),  # one exchanged for one
        ([2, 3], [5, 6, 3], (0, 2, 3, 4, 5, 6, 7, 7)),  # one for two: matched from the last
        ([2, 7, 3], [5, 3], (0, 1, 1, 2, 3, 4, 5, 6)),  # two for one
        ([1, 2, 3], [1, 3], (0, 1, 2, 2, 3, 4, 5, 6)),  # one left out: it becomes what follows
        ([1, 2], [], (0, 1, 1, 1, 2, 3, 4, 5)),
    ],
)
def test_words_meet_their_counterparts_and_padding_follows(
    old: list[int], new: list[int], becomes: tuple[int, ...]
) -> None:
    assert aligned(old, new) == becomes


def test_only_tokens_that_both_texts_hold_are_the_same() -> None:
    assert align([START, 1, 2, END], [START, 1, 5, END], length=6).same == (True, True, False, True, True, True)
