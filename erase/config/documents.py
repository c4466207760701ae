"""YAML files read as typed values; whatever is wrong with one is said in one line that names the key."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from erase import registry
from erase.errors import EraseError

F = TypeVar("F", bound="Form")

_TAG = "tag:yaml.org,2002:"
_DEEPEST = 50  # levels of lists and mappings in each other
_REPEATED = 10_000  # lists and mappings that anchors put into further places
_LARGEST = 1024  # bits of a whole number
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")  # what no file's name, no prompt and no UTF-8 holds
_COLLECTIONS = {dict: "keys and values", list: "a list", str: "text", type(None): "nothing"}


class Form(BaseModel):
    """Base of every mapping in a file: unchangeable, and a key that it does not have is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True, validate_by_name=False
    )


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe subset of plain values: a key is text and stands once, a date is text, no binaries, no sets."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag not in [f"{_TAG}{kind}" for kind in ("timestamp", "binary", "set", "omap", "pairs")]
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                found = f"{key.value} is no text; write it in quotes" if isinstance(key.value, str) else "is a list"
                raise yaml.MarkedYAMLError(None, None, f"a key {found}", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f'key "{key.value}" is given twice', key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_text(path: Path, *, error: type[EraseError]) -> str:
    """The file's text; raises `error` if it is no readable UTF-8 text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as problem:
        raise error(f"{shortened(str(path))} cannot be read as UTF-8 text ({type(problem).__name__}).") from problem
    if "\0" in text:
        raise error(f"{path} cannot be read as UTF-8 text (it holds a NUL).")
    return text


def parse_yaml(text: str, *, source: str, error: type[EraseError], example: str = "name: my-run") -> dict[str, Any]:
    """The mapping that a YAML text holds; raises `error` with the line and column if it is not one.

    `example` is shown where it is no mapping.
    """
    value = parse_value(text, source=source, error=error)
    if not isinstance(value, dict):
        found = _COLLECTIONS.get(type(value), f"the value {value!r}")
        raise error(f'{source} holds {found}; expected keys and values, such as "{example}".')
    return value


def parse_value(text: str, *, source: str, error: type[EraseError]) -> Any:
    """The plain value that a YAML text holds, whatever it is; raises `error` with the line and column."""
    try:
        # A subclass of the safe loader: it builds plain values only.
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise error(f"{source} is not valid YAML{place}: {problem.problem or problem.context}.") from problem
    except RecursionError as problem:
        raise error(f"{source} is nested too deeply; expected at most {_DEEPEST} levels.") from problem
    except (yaml.YAMLError, AttributeError, LookupError, TypeError, ValueError) as problem:
        raise error(f"{source} is not valid YAML: {shortened(' '.join(str(problem).split()), 200)}.") from problem
    check_plain(value, source=source, error=error)
    return value


def check_plain(value: object, *, source: str, error: type[EraseError]) -> None:
    """Raises `error` for a value that no file needs and no step can take, whatever its key.

    That is text with a NUL or half a character in it, a number of hundreds of digits, more than 50 levels (or a value
    that holds itself), and anchors that stand for more than 10,000 lists.
    """
    pending: list[tuple[object, int]] = [(value, 1)]
    seen: set[int] = set()
    repeated = 0
    while pending:
        one, depth = pending.pop()
        if isinstance(one, dict | list):
            repeated += id(one) in seen
            seen.add(id(one))
            if depth > _DEEPEST:
                raise error(f"{source} is nested too deeply, or holds itself; expected at most {_DEEPEST} levels.")
            if repeated > _REPEATED:
                raise error(f"{source} has anchors that stand for too many values; write them out.")
            parts = [part for pair in one.items() for part in pair] if isinstance(one, dict) else one
            pending += [(part, depth + 1) for part in parts]
        elif isinstance(one, str) and (match := _UNUSABLE.search(one)):
            raise error(f"{source} holds {match[0]!r} in {shortened(ascii(one))}, which is no character; remove it.")
        elif isinstance(one, int) and one.bit_length() > _LARGEST:
            raise error(f"{source} holds a whole number of more than 300 digits; give a smaller one.")


def overridden(value: Any, changes: Mapping[str, Any], *, error: type[EraseError]) -> Any:
    """The mappings and lists with other values at dotted keys, such as `edit.method` or `task.targets.0.anchor`.

    Raises `error` for a key below what is neither a mapping nor a list.
    """
    for key, new in changes.items():
        value = _with_value(value, key.split("."), new, key=key, error=error)
    return value


def _with_value(value: Any, path: Sequence[str], new: Any, *, key: str, error: type[EraseError]) -> Any:
    if not path:
        return new
    first, rest = path[0], path[1:]
    if isinstance(value, list) and first.isdecimal() and int(first) < len(value):
        inner = _with_value(value[int(first)], rest, new, key=key, error=error)
        return [*value[: int(first)], inner, *value[int(first) + 1 :]]
    if not isinstance(value, dict | None):
        raise error(f'--set {key}: there is no "{first}" in {shortened(repr(value))}; give the key above it a value.')
    return {**(value or {}), first: _with_value((value or {}).get(first), rest, new, key=key, error=error)}


def check(value: object, form: type[F], *, source: str, error: type[EraseError]) -> F:
    """The value as `form`; raises `error` with one line that names the key at fault."""
    try:
        return form.model_validate(value)
    except ValidationError as problem:
        raise error(f"{source}: {_first_problem(problem, form)}") from problem


def check_value(value: object, kind: Any, *, key: str, error: type[EraseError]) -> Any:
    """The value as the type `kind`; raises `error` with one line that names the key."""
    # A dataclass or a form has settings of its own, beside which pydantic takes no others.
    config = None if dataclasses.is_dataclass(kind) or _form_in(kind) is kind else ConfigDict(allow_inf_nan=False)
    try:
        return TypeAdapter(kind, config=config).validate_python(value)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place = f"{key}, {_dotted(first['loc'])}," if first["loc"] else key
        raise error(f"{place} is {shortened(repr(first['input']))}; {_expectation(str(first['msg']))}.") from problem


def shortened(text: str, length: int = 60) -> str:
    """The text, its end cut off where it is longer."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def wrong_key(key: str, valid: list[str], *, where: str, what: str = "key") -> str:
    """One line on a key, or another word, that does not exist, with the nearest and all valid ones."""
    return f'unknown {what} "{shortened(key)}" in {where}{registry.guess(key, valid)}'


def _first_problem(problem: ValidationError, form: type[Form]) -> str:
    """The problem that explains most: a mistyped key comes before the missing one that it was meant to be."""
    errors = sorted(problem.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    first = errors[0]
    *parents, last = first["loc"] or ("file",)
    path = _dotted((*parents, last))
    if first["type"] == "extra_forbidden":
        text = wrong_key(str(last), _keys_at(form, tuple(parents)), where=_dotted(tuple(parents)) or "the file")
    elif first["type"] == "missing":
        text = f"{path} is missing; the file must give it."
    elif first["type"] == "value_error":
        text = f"{path}: {str(first['msg']).removeprefix('Value error, ')}."
    else:
        given = f'"{first["input"]}"' if isinstance(first["input"], str) else repr(first["input"])
        text = f"{path} is {shortened(given)}; {_expectation(str(first['msg']))}."
    others = f" ({len(errors) - 1} more after this one.)" if len(errors) > 1 else ""
    return text + others


def _expectation(message: str) -> str:
    return message.replace("Input should be", "expected").replace("Input", "it").rstrip(".")


def _dotted(location: tuple[str | int, ...]) -> str:
    """The location as a reader writes it: `task.targets[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _keys_at(form: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    for part in location:
        if isinstance(part, str) and part in form.model_fields:
            form = _form_in(form.model_fields[part].annotation) or form
    return list(form.model_fields)


def _form_in(annotation: object) -> type[BaseModel] | None:
    """The form inside an annotation such as `tuple[Form, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_form_in(part) for part in typing.get_args(annotation))
    return next((one for one in found if one is not None), None)
