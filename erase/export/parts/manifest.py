"""The manifest of an exported folder: read with distrust, and compared with what lies there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from erase.config import documents
from erase.config.documents import Form
from erase.edit_file import StoredInfo, StoredTask
from erase.errors import BadModel
from erase.export.parts.recipe import MANIFEST
from erase.files import sha256_of
from erase.models.storage.weights import content_digest

_LARGEST = 64 * 2**20  # bytes; that of the largest model stays below 1 MB
_NOT_OURS = (".git", ".cache", ".gitattributes")  # what the hub and git put beside a model


class _Open(Form):
    """A mapping of the very types that are written, which may hold more than it names."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class _File(_Open):
    sha256: str


class _Changed(_Open):
    tensor: str
    file: str
    sha256_before: str
    sha256_after: str
    relative_change: float | None = None


class _Edit(_Open):
    content: str
    base: str = ""
    method: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    task: StoredTask = StoredTask()
    strength: float = 1.0
    parts: Sequence[StoredInfo] = ()


class _Stored(_Open):
    """What a manifest has to hold, whatever else it says."""

    base: str
    edit: _Edit
    files: dict[str, _File]
    changed: Sequence[_Changed]
    added: Sequence[str] = ()
    renamed: dict[str, str] = Field(default_factory=dict)
    rewritten: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What an exported folder says of itself; its file names are plain and lead nowhere else."""

    folder: Path
    content: dict[str, Any]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        return self.content["files"]  # type: ignore[no-any-return]

    @property
    def changed(self) -> list[dict[str, Any]]:
        return self.content["changed"]  # type: ignore[no-any-return]

    def tensor(self, record: dict[str, Any]) -> Tensor:
        """A changed tensor's value in the folder; raises BadModel if it is not there."""
        file = self.folder / record["file"]
        try:
            with safe_open(file, framework="pt") as opened:
                key = record.get("key") or stored_key(record["tensor"], set(opened.keys()))
                value: Tensor = opened.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise BadModel(f"{file} does not hold {record['tensor']} ({error}); download the model again.") from error
        return value


def stored_key(name: str, keys: set[str]) -> str:
    """A tensor's key in its file, where text encoders are stored with and without `text_model.` in front."""
    key = name.partition(".")[2]
    return key if key in keys else f"text_model.{key}"


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest; raises BadModel if there is none, or if it cannot be trusted."""
    file = folder / MANIFEST
    if not file.is_file():
        raise BadModel(f"{folder} has no {MANIFEST}; expected a folder that `erase export --to folder` wrote.")
    if file.stat().st_size > _LARGEST:
        raise BadModel(f"{file} has {file.stat().st_size} bytes, which no manifest has; do not trust it.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        documents.check(content, _Stored, source=f"{file} is damaged", error=BadModel)
        names = [*content["files"], *(record["file"] for record in content["changed"]), *content.get("renamed", ())]
        names += [*content.get("renamed", {}).values(), *content.get("respelled", {})]
        names += content.get("rewritten", {})
        _ = content["edit"]["content"], content["base"], [record["sha256_after"] for record in content["changed"]]
        sound = all(isinstance(entry["sha256"], str) for entry in content["files"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadModel(f"{file} is damaged ({type(error).__name__}: {error}); download the model again.") from error
    bad = next((name for name in names if not is_inside(name)), None if sound else "a file without a hash")
    if bad is not None:
        raise BadModel(f'{file} names "{bad}", which is no file of the folder; do not trust it.')
    return Manifest(folder, content)


def is_inside(name: object) -> bool:
    """Whether a manifest's file name is relative and plain: no `..`, no root, no backslash, no empty part."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name


def verify(folder: Path) -> Manifest:
    """The folder's manifest, after every file and changed tensor was found to be what it says.

    Raises BadModel, which names the first thing that is not, and says how many more there are.
    """
    manifest = read_manifest(folder)
    found = list(problems(manifest))
    if found:
        more = f" ({len(found) - 1} more after this one)" if len(found) > 1 else ""
        raise BadModel(f"{folder} is not what its manifest says: {found[0]}{more}; download the model again.")
    return manifest


def problems(manifest: Manifest) -> Iterator[str]:
    """Everything in which a folder differs from its manifest, a line each."""
    folder, root = manifest.folder, manifest.folder.resolve()
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif not path.resolve().is_relative_to(root):
            yield f"{name} is a link that leads out of the folder"
        elif sha256_of(path) != entry["sha256"]:
            yield f"{name} has another hash"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (*manifest.files, MANIFEST) and name.split("/")[0] not in _NOT_OURS:
            yield f"{name} is not in the manifest"
    yield from _wrong_tensors(manifest)


def _wrong_tensors(manifest: Manifest) -> Iterator[str]:
    for record in manifest.changed:
        try:
            value = manifest.tensor(record)
        except BadModel:
            yield f"{record['tensor']} cannot be read"
            continue
        if content_digest([(record["tensor"], value)]) != record["sha256_after"]:
            yield f"{record['tensor']} has another value"
