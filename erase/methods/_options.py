"""Options of a method that are out of range, told by name."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence

from erase import registry
from erase.errors import BadOption


def check_options(
    options: object,
    *,
    positive: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    counts: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> None:
    """Raises BadOption for the first option that is out of its range or none of its words.

    `counts` are 1 or more, `shares` from 0 to 1.
    """
    checks: tuple[tuple[Sequence[str], Callable[[float], bool], str], ...] = (
        (positive, lambda value: value > 0, "a number greater than 0"),
        (not_negative, lambda value: value >= 0, "0 or more"),
        (counts, lambda value: value >= 1, "1 or more"),
        (shares, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    )
    for names, holds, expected in checks:
        for name in names:
            if not holds(getattr(options, name)):
                raise BadOption(f"{name_of(options)}: {name} is {getattr(options, name)}; expected {expected}.")
    for name, kind in typing.get_type_hints(type(options)).items():
        if typing.get_origin(kind) is typing.Literal and getattr(options, name) not in (valid := typing.get_args(kind)):
            given = getattr(options, name)
            raise BadOption(f'{name_of(options)}: {name} is "{given}"; expected one of {", ".join(map(str, valid))}.')


def name_of(options: object) -> str:
    """The method's name in a pipeline, from its options."""
    return registry.name_of(options)
