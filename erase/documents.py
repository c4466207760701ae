"""YAML files read as typed values; whatever is wrong with one is said in one line that names the key."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from erase import names
from erase.errors import EraseError, UnknownName

F = TypeVar("F", bound="Form")

_COLLECTIONS = {dict: "keys and values", list: "a list", str: "text", type(None): "nothing"}


class Form(BaseModel):
    """Base of every mapping in a file: unchangeable, and a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe subset in which a key that stands twice is an error instead of silently the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f'key "{key.value}" stands twice', key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def find(kind: str, given: str, *, what: str) -> Path:
    """The file that a name or a path stands for; raises UnknownName."""
    if given in names.known(kind):
        return names.data_folder(kind) / f"{given}.yaml"
    path = Path(given).expanduser()
    if path.is_file():
        return path
    raise UnknownName(names.nearest(what, given, names.known(kind), path_too=True))


def read_text(path: Path, *, error: type[EraseError]) -> str:
    """The file's text; raises `error` if it is no readable UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path} cannot be read as UTF-8 text ({type(problem).__name__}).") from problem


def parse_yaml(text: str, *, source: str, error: type[EraseError]) -> dict[str, Any]:
    """The mapping that a YAML text holds; raises `error` with the line and column if it is not one."""
    try:
        # A subclass of the safe loader: it builds plain values only.
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise error(f"{source} is not valid YAML{place}: {problem.problem or problem.context}.") from problem
    except (yaml.YAMLError, ValueError) as problem:
        raise error(f"{source} is not valid YAML: {' '.join(str(problem).split())}.") from problem
    if not isinstance(value, dict):
        found = _COLLECTIONS.get(type(value), f"the value {value!r}")
        raise error(f'{source} holds {found}; expected keys and values, such as "name: my-run".')
    return value


def check(value: object, form: type[F], *, source: str, error: type[EraseError]) -> F:
    """The value as `form`; raises `error` with one line that names the key at fault."""
    try:
        return form.model_validate(value)
    except ValidationError as problem:
        raise error(f"{source}: {_first_problem(problem, form)}") from problem


def check_value(value: object, kind: Any, *, key: str, error: type[EraseError]) -> Any:
    """The value as the type `kind`; raises `error` with one line that names the key."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        raise error(f"{key} is {value!r}; {_expectation(str(first['msg']))}.") from problem


def wrong_key(key: str, valid: list[str], *, where: str) -> str:
    """One line on a key that does not exist, with the nearest and all valid ones."""
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    guess = f'; did you mean "{close[0]}"?' if close else "."
    return f'unknown key "{key}" in {where}{guess} Known: {", ".join(valid) or "none"}.'


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
        text = f"{path} is {_short(first['input'])}; {_expectation(str(first['msg']))}."
    others = f" ({len(errors) - 1} more after this one.)" if len(errors) > 1 else ""
    return text + others


def _expectation(message: str) -> str:
    return message.replace("Input should be", "expected").replace("Input", "it").rstrip(".")


def _short(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
