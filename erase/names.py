"""Names in a pipeline file are files in a folder: listing, loading, and the answer to a name that does not exist."""

from __future__ import annotations

import difflib
import importlib
import re
from pathlib import Path

from erase.errors import UnknownName

PACKAGE = Path(__file__).parent
DEFAULT_METHOD = "redirect"  # of an edit that names none: our own closed form
_CODE = {"methods": "methods", "scores": "evaluate/scores", "exports": "export", "detectors": "evaluate/detectors"}
HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(@(?P<revision>[\w./-]+))?")


def data_folder(kind: str) -> Path:
    """The folder of `pipelines`, `prompts` or `protocols`: at the top of a checkout, inside an installed package.

    Prompt sets that are `declared` and not carried lie below `prompts`.
    """
    if kind == "declared":
        return data_folder("prompts") / kind
    installed = PACKAGE / "_data" / kind
    return installed if installed.is_dir() else PACKAGE.parent / kind


def known(kind: str) -> list[str]:
    """All names of a kind, sorted."""
    if kind in _CODE:
        files = (PACKAGE / _CODE[kind]).glob("*.py")
        return sorted(file.stem for file in files if not file.stem.startswith("_"))
    if kind == "models":
        return sorted(index.parent.name for index in (PACKAGE / "models").glob("*/model_index.json"))
    folder = data_folder(kind)
    if kind == "protocols":  # may lie deeper: clip/b32-logit
        return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    return sorted(file.stem for file in folder.glob("*.yaml"))


def path_of(given: str) -> Path:
    """The path that a user wrote, `~` being a home folder; raises UnknownName for one that no file can have."""
    shown = given if len(given) <= 60 else f"{given[:57]}..."
    try:
        path = Path(given).expanduser()
        path.exists()  # which raises for a name that is too long, and in a folder that must not be read
    except RuntimeError as problem:
        raise UnknownName(f'"{shown}" names the home folder of nobody here; write the path out.') from problem
    except OSError as problem:
        raise UnknownName(f'"{shown}" is no path that can be read ({problem.strerror}); give another.') from problem
    if "\0" in given:
        raise UnknownName(f"{shown!a} holds a NUL, which no path does; give another.")
    return path


def is_hub_id(name: str) -> bool:
    """Whether a name can be a model's on the hub, `owner/name` or `owner/name@revision`, and is no path from here."""
    return HUB_ID.fullmatch(name) is not None and not Path(name.partition("/")[0]).exists()


def unknown(kind: str, given: str, *, path_too: bool = False) -> UnknownName:
    """The error for a name that does not exist: the nearest one and all valid ones."""
    return UnknownName(nearest(kind.removesuffix("s"), given, known(kind), path_too=path_too))


def nearest(what: str, given: str, valid: list[str], *, path_too: bool = False) -> str:
    """One line saying that a name is unknown, which is nearest, and which there are."""
    close = difflib.get_close_matches(given, valid, n=1, cutoff=0.5)
    guess = f'; did you mean "{close[0]}"?' if close else "."
    place = ", and no such path exists" if path_too else ""
    shown = given if len(given) <= 200 else f"{given[:197]}..."
    return f'{what} "{shown}" does not exist{place}{guess} Known: {", ".join(valid) or "none"}.'


def load(kind: str, name: str) -> object:
    """The class or function that a file is named for: `uce` is `UCE` in `methods/uce.py`.

    Raises UnknownName.
    """
    if name not in known(kind):
        raise unknown(kind, name)
    module = importlib.import_module(f"erase.{_CODE[kind].replace('/', '.')}.{name}")
    wanted = name.replace("_", "").lower()
    matches = [value for key, value in vars(module).items() if key.replace("_", "").lower() == wanted]
    if not matches:
        raise UnknownName(f"{module.__name__} holds nothing named after its file, {name}.")
    return matches[0]
