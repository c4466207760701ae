"""Options are in the ranges that stand in their annotations, also where a class declares one anew."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from erase.errors import BadOption
from erase.options import Count, Decay, Inner, NotNegative, Options, Positive, Rate, Share, Whole


@dataclass(frozen=True)
class Wide(Options):
    count: Count = 1
    whole: Whole = 0
    positive: Positive = 0.5
    not_negative: NotNegative = 0.0
    share: Share = 1.0
    inner: tuple[Inner, ...] = (0.5,)
    decay: Decay = 0.0
    rate: Rate = 1.0
    word: Literal["one", "two"] = "one"


@dataclass(frozen=True)
class Narrow(Wide):
    count: int = 2


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("count", 0, "count is 0; expected 1 or more"),
        ("whole", -1, "whole is -1; expected 0 or more"),
        ("positive", 0.0, "positive is 0.0; expected a number greater than 0"),
        ("positive", math.nan, "positive is nan"),
        ("not_negative", -0.1, "not_negative is -0.1; expected 0 or more"),
        ("share", 1.5, "share is 1.5; expected a number from 0 to 1"),
        ("inner", (0.5, 1.0), r"inner is \[0.5, 1.0\]; expected a number between 0 and 1"),
        ("inner", (), r"inner is \[\]"),
        ("decay", 1.0, "decay is 1.0; expected 0 or more and less than 1"),
        ("rate", 0.0, "rate is 0.0; expected more than 0, at most 1"),
        ("word", "three", 'word is "three"; expected one of one, two'),
    ],
)
def test_what_is_out_of_its_range_is_refused_by_name(name: str, value: Any, said: str) -> None:
    Wide()
    with pytest.raises(BadOption, match=said):
        Wide(**{name: value})


def test_who_declares_an_option_anew_keeps_its_range() -> None:
    assert Narrow().count == 2
    with pytest.raises(BadOption, match="count is 0; expected 1 or more"):
        Narrow(count=0)
