"""Options whose ranges stand where they are declared, and are checked when they are made."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from erase.errors import BadOption
from erase.registry import name_of


@dataclass(frozen=True)
class Expect:
    """What an option's value has to be, in words and as a test."""

    said: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Expect("1 or more", lambda value: value >= 1)]
Whole = Annotated[int, Expect("0 or more", lambda value: value >= 0)]
Positive = Annotated[float, Expect("a number greater than 0", lambda value: value > 0)]
NotNegative = Annotated[float, Expect("0 or more", lambda value: value >= 0)]
Share = Annotated[float, Expect("a number from 0 to 1", lambda value: 0 <= value <= 1)]
Inner = Annotated[float, Expect("a number between 0 and 1", lambda value: 0 < value < 1)]
Decay = Annotated[float, Expect("0 or more and less than 1", lambda value: 0 <= value < 1)]
Rate = Annotated[float, Expect("more than 0, at most 1", lambda value: 0 < value <= 1)]


class Options:
    """Options that are in their ranges and of their words; raises BadOption for the first that is not.

    Of a tuple each part has to be, and there has to be one. Who declares an option anew keeps its range.
    """

    def __post_init__(self) -> None:
        hints = [typing.get_type_hints(owner, include_extras=True) for owner in type(self).__mro__]
        for name, kind in (pair for declared in hints for pair in declared.items()):
            several = typing.get_origin(kind) is tuple
            for rule in _rules(typing.get_args(kind)[0] if several else kind):
                value = getattr(self, name)
                if not (value and all(map(rule.holds, value)) if several else rule.holds(value)):
                    given = f'"{value}"' if isinstance(value, str) else list(value) if several else value
                    raise BadOption(f"{name_of(self)}: {name} is {given}; expected {rule.said}.")


def _rules(kind: Any) -> Iterator[Expect]:
    """What values of a kind have to be."""
    if typing.get_origin(kind) is typing.Literal:
        words = typing.get_args(kind)
        yield Expect(f"one of {', '.join(map(str, words))}", words.__contains__)
    yield from (rule for rule in getattr(kind, "__metadata__", ()) if isinstance(rule, Expect))
