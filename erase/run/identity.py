"""A step's identity: a hash over what it depends on, so that a run does again only what a change touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from erase.errors import RunConflict
from erase.files import content_hash

if TYPE_CHECKING:
    from erase.run.pipeline import Pipeline

# The keys of a recipe that each step reads, and the step that it rests on.
KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "edit": ("model", "loras", "task", "edit"),
        "generate": ("generate", "verify.protocol"),
        "attack": ("attack", "verify.with"),
        "score": ("verify.with", "gate", "score"),
        "grid": ("grid",),
        "export": ("export", "export_options"),
    }
)
_RESTS_ON = MappingProxyType(
    {"generate": "edit", "attack": "generate", "score": "attack", "grid": "score", "export": "edit"}
)
_NO_MATTER = ("batch", "offload")  # of `generate`: how fast, not what


def identities(recipe: Pipeline) -> dict[str, str]:
    """Each step's identity; that of the report is the grid's, the score's and the export's together."""
    said = recipe.model_dump(mode="json")
    said["generate"] = {key: value for key, value in said["generate"].items() if key not in _NO_MATTER}
    found: dict[str, str] = {}
    for step, keys in KEYS.items():
        own = {key: _at(said, key) for key in keys}
        found[step] = content_hash([own, found.get(_RESTS_ON.get(step, ""), "")])
    return found


def changed_steps(there: Pipeline, here: Pipeline) -> tuple[str, ...]:
    """The steps whose results another recipe makes otherwise, in their order."""
    left, right = identities(there), identities(here)
    return tuple(step for step in KEYS if left[step] != right[step])


def refuse_other_images(there: Pipeline, here: Pipeline, folder: Path) -> None:
    """Raises RunConflict if a folder's run has another edit or other images than a recipe would make."""
    first = next(iter(changed_steps(there, here)), "")
    if first in ("edit", "generate"):
        keys = tuple(f"{key}." for key in KEYS[first])
        changes = [
            one for one in differences(there, here) if f"{one.partition(' ')[0]}.".replace("[", ".").startswith(keys)
        ]
        more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
        redone = "its edit and its images" if first == "edit" else "its images"
        raise RunConflict(
            f"{folder} holds a run of another recipe ({(changes or ['its hash'])[0]}{more}), by which {redone} would "
            "be made again; give another folder by --out, or remove that one."
        )


def differences(one: Pipeline, other: Pipeline) -> list[str]:
    """The keys in which two recipes differ, each with both values."""
    left, right = (dict(_flat(recipe.model_dump(mode="json"))) for recipe in (one, other))
    keys = [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]
    ignored = ("hash", "name", "description", *(f"generate.{key}" for key in _NO_MATTER))
    return [f"{key} is {left.get(key)} there and {right.get(key)} here" for key in keys if key not in ignored]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings and lists with its dotted key."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _flat(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            yield from _flat(part, f"{key}[{number}]")
    else:
        yield key, value


def _at(said: Mapping[str, object], key: str) -> object:
    value: object = said
    for part in key.split("."):
        value = value[part] if isinstance(value, Mapping) else None
    return value
