"""What can be told of a name: its options, each with type, default and the sentence of its docstring."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from erase import registry
from erase.run import options

_HEAD = re.compile(r"(?:^|(?<=[.;,)] ))((?:`\w+`, )*`\w+`)(: ?| )")  # of what a docstring says of some options
_AS_IN = re.compile(r"as in (\w+)")
_WORDS = {str: "text", float: "number", int: "whole number", bool: "true | false", Path: "path"}
_NOTHING = object()


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: what it may be, what it is if left out ("" where it must be given), and what it does."""

    name: str
    type: str
    default: str
    text: str


def options_of(kind: str, name: str) -> tuple[Option, ...]:
    """The options of a method, an export or a detector, in the order of their declaration.

    Raises UnknownName, BadPlugin.
    """
    found: Any = registry.load(kind, name)
    types = typing.get_type_hints(found)
    said = _sentences(found, kind, frozenset(types))
    of_path = f"A local file or folder, given as --with {name}=PATH."
    return tuple(
        Option(
            option, _type(types[option]), _default(default), said.get(option, of_path if types[option] is Path else "")
        )
        for option, default in _defaults(found)
    )


def presets_of(name: str) -> tuple[str, ...]:
    """Names of the presets that a method has of its own."""
    return tuple(options.presets_of(registry.load("methods", name)))


def _defaults(found: Any) -> Iterator[tuple[str, object]]:
    if not dataclasses.is_dataclass(found):
        for one in inspect.signature(found).parameters.values():
            if one.kind is one.KEYWORD_ONLY:
                yield one.name, _NOTHING if one.default is one.empty else one.default
        return
    for field in dataclasses.fields(found):
        if field.default_factory is not dataclasses.MISSING:
            yield field.name, field.default_factory()
        else:
            yield field.name, _NOTHING if field.default is dataclasses.MISSING else field.default


def _sentences(found: Any, kind: str, known: frozenset[str]) -> dict[str, str]:
    """What the docstrings of a class and of those that it builds on say of each option."""
    owners = reversed(found.__mro__[:-1]) if isinstance(found, type) else (found,)
    said: dict[str, str] = {}
    for text in [owner.__doc__ or "" for owner in owners]:
        said |= _entries(text.partition("Raises ")[0], known)
    for option, text in said.items():
        if match := _AS_IN.search(text):
            other = match[1].lower()
            if len(text) < 20 and other in registry.own(kind):
                theirs: Any = registry.load(kind, other)
                said[option] = _sentences(theirs, kind, frozenset(typing.get_type_hints(theirs))).get(option, text)
    return said


def _entries(docstring: str, known: frozenset[str]) -> dict[str, str]:
    """The sentence that stands for each option: after its name and a colon, or the one that speaks of it."""
    text = " ".join(docstring.split())
    heads = [
        head
        for head in _HEAD.finditer(text)
        if known.issuperset(_names(head[1]))
        and (":" in head[2] or text[: head.start()].rstrip()[-1:] in ("", ".", ";"))
    ]
    starts = [*(head.start() for head in heads), len(text)]
    parts = [(head, text[head.start() : end]) for head, end in zip(heads, starts[1:], strict=True)]
    said = {option: _plain(part) for _, part in parts for option in re.findall(r"`(\w+)`", part) if option in known}
    for head, part in parts:
        body = part[head.end() - head.start() :] if ":" in head[2] or _AS_IN.match(part, len(head[0])) else part
        said |= dict.fromkeys(_names(head[1]), _plain(body))
    return said


def _names(text: str) -> list[str]:
    return re.findall(r"`(\w+)`", text)


def _plain(text: str) -> str:
    return f"{text.replace('`', '').strip().rstrip('.,;')}."


def _type(kind: Any) -> str:
    """A declared type in words."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " | ".join(map(str, parts))
    if origin in (typing.Union, UnionType):
        return " | ".join("nothing" if part is NoneType else _type(part) for part in parts)
    if origin is not None and issubclass(origin, Mapping):
        return "mapping"
    if origin is not None:
        return f"list of {_type(parts[0])}s" if parts else "list"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _default(value: object) -> str:
    """A default as `--option` takes it."""
    if value is _NOTHING:
        return ""
    is_word = isinstance(value, str) and re.fullmatch(r"[\w.-]+", value)
    return str(value) if is_word else json.dumps(value, default=str, ensure_ascii=False)
