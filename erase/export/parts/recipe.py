"""What an exported file or folder says of the edit in it, with the concepts' names left out where asked."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from erase import __version__
from erase.edit import Edit
from erase.edit_file import METADATA_KEY
from erase.errors import RunConflict

RECIPE_KEY = "erase.recipe"
MANIFEST = "manifest.json"


def recipe(edit: Edit, *, redact: str = "") -> dict[str, Any]:
    """Method, options, task, base, and the edit's identity.

    `redact` is a secret: the concepts' names become keyed hashes (HMAC-SHA256), which only who knows it can check.
    """
    info = json.loads(json.dumps(asdict(edit.info)))
    return {"tool": f"erase {__version__}", "content": edit.content, **(redacted(info, redact) if redact else info)}


def redacted(info: Mapping[str, Any], secret: str) -> dict[str, Any]:
    """A description with every target, anchor, keep and prompt in it replaced by its keyed hash."""
    targets = info["task"].get("targets", [])
    kinds = {target["kind"] for target in targets}
    words = {leaf.lower() for target in targets for leaf in _leaves(target)} - kinds - {""}
    task = _hashed(info["task"], secret, lambda text: bool(text) and text not in kinds)
    rest = {
        key: _hashed(info.get(key, {}), secret, lambda text: any(word in text.lower() for word in words))
        for key in ("options", "record")
    }
    return {**info, **rest, "task": task, "parts": [redacted(part, secret) for part in info["parts"]]}


def title_of(edit: Edit, base: str, *, redact: str = "") -> str:
    """A name for the edited model: the base and what was erased from it."""
    targets = [str(target["name"]) for target in edit.info.task.get("targets", [])]
    if redact or not targets:
        return f"{base}, edited"
    shown = ", ".join(targets[:3]) + (f" and {len(targets) - 3} more" if len(targets) > 3 else "")
    return f"{base} without {shown}"


def single_file(target: Path, edit: Edit) -> Path:
    """Where an export of one file goes, its suffix included; raises RunConflict if another file lies there."""
    if target.suffix != ".safetensors":
        target = target.with_name(f"{target.name}.safetensors")
    if target.exists() and content_in(target) != edit.content:
        raise RunConflict(f"{target} holds something else; name another file or remove it first.")
    return target


def content_in(exported: Path) -> str | None:
    """The identity of the edit that an exported file or folder says it holds; nothing if it says none."""
    try:
        if exported.is_dir():
            return str(json.loads((exported / MANIFEST).read_text(encoding="utf-8"))["edit"]["content"])
        return _content_of_file(exported)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _content_of_file(file: Path) -> str | None:
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    if METADATA_KEY in metadata:
        return Edit.load(file).content
    return str(json.loads(metadata[RECIPE_KEY])["content"])


def _hashed(value: Any, secret: str, is_name: Callable[[str], bool]) -> Any:
    """The value with those of its texts hashed that are names."""
    if isinstance(value, dict):
        return {key: _hashed(part, secret, is_name) for key, part in value.items()}
    if isinstance(value, list):
        return [_hashed(part, secret, is_name) for part in value]
    if not isinstance(value, str) or not is_name(value):
        return value
    return "hmac:" + hmac.new(secret.encode(), value.encode(), hashlib.sha256).hexdigest()[:32]


def _leaves(value: Any) -> list[str]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if parts is None:
        return [value] if isinstance(value, str) else []
    return [leaf for part in parts for leaf in _leaves(part)]


def remove_export(place: Path) -> None:
    """Removes an export of ours, which is to be made anew; whatever else lies in its place stays."""
    if content_in(place) is not None:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
