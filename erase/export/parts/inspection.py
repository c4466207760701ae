"""What a file or folder is (a model, an edit, a LoRA, a checkpoint), which edit is in it, and its hashes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erase.edit import Edit
from erase.edit_file import METADATA_KEY
from erase.errors import BadModel, BadWeights
from erase.export.lora import LOSS_KEY
from erase.export.parts.card import parts_of
from erase.export.parts.manifest import read_manifest
from erase.export.parts.recipe import MANIFEST, RECIPE_KEY, recipe
from erase.export.parts.undo import REVERSAL_KEY
from erase.export.parts.writing import HASH_KEY
from erase.files import sha256_of
from erase.models.storage.kinds import kind_of
from erase.models.storage.stored import read_header
from erase.models.storage.weights import read_keys


@dataclass(frozen=True)
class Finding:
    """What lies at a path, and facts about it in the order in which they are shown."""

    what: str
    facts: Mapping[str, Any]


def look_at(path: Path) -> Finding:
    """What a file or folder is; reads no pickle and runs nothing.

    Raises BadModel for what is no model, BadWeights for a damaged file, PickleRefused.
    """
    return _folder(path) if path.is_dir() else _file(path)


def _folder(path: Path) -> Finding:
    index = path / "model_index.json"
    if not index.is_file():
        raise BadModel(f"{path} is no model: expected a diffusers folder with a model_index.json in it.")
    try:
        name = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise BadModel(f"{index} is not a JSON object ({error}); download the model again.") from error
    facts: dict[str, Any] = {"pipeline": name}
    is_edited = (path / MANIFEST).is_file()
    if is_edited:
        manifest = read_manifest(path)
        facts |= edit_facts({"tool": "?", "parts": [], **manifest.content["edit"]})
        changes = [record.get("relative_change") or 0.0 for record in manifest.changed]
        facts["changed"] = f"{len(changes)} tensors, at most {100 * max(changes, default=0.0):.2g} % of one"
    for file in sorted(path.glob("*/*.safetensors")):
        facts[file.relative_to(path).as_posix()] = _contents(file)
    return Finding("an edited model, as a diffusers folder" if is_edited else "a diffusers folder", facts)


def _file(path: Path) -> Finding:
    metadata, keys = read_keys(path)
    facts: dict[str, Any] = {}
    what = _what(keys, metadata)
    if METADATA_KEY in metadata:
        edit = Edit.load(path)
        facts |= edit_facts(recipe(edit)) | {"rank": edit.rank, "changes": f"{len(edit.touches)} tensors"}
        if edit.info.effect is not None:
            problems = edit.info.effect.problems
            facts["effect"] = "; ".join(f"{one.kind}: {one.text}" for one in problems) or "as it should be"
    elif RECIPE_KEY in metadata:
        said = _json(path, metadata[RECIPE_KEY])
        facts |= edit_facts(said)
        if said.get("copies"):
            facts["copies"] = f"{len(said['copies'])} tensors that repeat edited ones were edited as well"
    if LOSS_KEY in metadata:
        lora = _json(path, metadata[LOSS_KEY])
        losses = lora.get("relative_error", {}).values()
        facts |= {"rank": lora["rank"]} if "rank" in lora else {}
        facts["lost"] = f"{max(losses, default=0.0):.2g} of a tensor's change at most"
    facts |= {key: value for key, value in sorted(metadata.items()) if key.startswith(("modelspec.", "ss_"))}
    facts |= {"contents": _contents(path), "sha256": sha256_of(path)}
    if HASH_KEY in metadata:
        facts["tensors' hash"] = "as the file says" if metadata[HASH_KEY] == tensor_hash(path) else "NOT as it says"
    return Finding(what, facts)


def edit_facts(said: Mapping[str, Any]) -> dict[str, Any]:
    """An edit's description in a few lines: by what, what it erases, from which base."""
    facts: dict[str, Any] = {"made by": said["tool"]}
    for number, (method, part) in enumerate(parts_of(said), start=1):
        which = f" {number}" if said["parts"] else ""
        options = ", ".join(f"{key}={value}" for key, value in part["options"].items())
        facts[f"method{which}"] = f"{method} ({options})" if options else method
        targets = part["task"].get("targets", [])
        facts[f"erases{which}"] = ", ".join(f"{one['name']} → {one.get('anchor') or 'nothing'}" for one in targets)
        facts[f"strength{which}"] = part["strength"]
    return facts | {"edit": said["content"], "base": said["base"]}


def tensor_hash(path: Path) -> str:
    """ModelSpec's hash of a file: SHA-256 over the tensors' bytes, its header left out."""
    digest, (_, begin) = hashlib.sha256(), read_header(path)
    with path.open("rb") as file:
        file.seek(begin)
        while chunk := file.read(2**20):
            digest.update(chunk)
    return f"0x{digest.hexdigest()}"


def _what(keys: list[str], metadata: Mapping[str, str]) -> str:
    if REVERSAL_KEY in metadata:
        return "a reversal file, from which `erase undo` restores a model"
    if METADATA_KEY in metadata:
        return "an edit"
    return kind_of(keys) or "a safetensors file of unknown content"


def _contents(path: Path) -> str:
    read_keys(path)
    entries = [entry for key, entry in read_header(path)[0].items() if key != "__metadata__"]
    kinds = Counter(str(entry["dtype"]) for entry in entries)
    shown = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    return f"{len(entries)} tensors ({shown or 'none'}), {path.stat().st_size:,} bytes"


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadWeights(f"{path} has damaged metadata ({error}); download it again.") from error
    if not isinstance(value, dict):
        raise BadWeights(f"{path} has damaged metadata; download it again.")
    return value
