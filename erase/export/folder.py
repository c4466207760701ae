"""The edited model as a diffusers folder: the source byte for byte, but for the tensors that the edit changes.

A single file is first laid out as a folder, with the settings and tokenizers of its family or those it was opened with.

A model card is put in, and the source's own kept beside it. `manifest.json`, written last, tells what was done: the
edit, the base, every file's hash, every changed tensor's.
Other copies of edited weights (a second variant, a pickle, a whole checkpoint beside the parts) are left out, and named
there: whoever loaded them would get what was erased.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase import __version__
from erase.edit import Edit
from erase.errors import BadModel
from erase.export._card import read_about, write_card
from erase.export._patching import rewrite
from erase.export._recipe import MANIFEST, recipe, title_of
from erase.export._undo import reversal_place, write_reversal
from erase.export._writing import Entry, write_tensors
from erase.files import building_folder, sha256_of
from erase.models import Model
from erase.models._hub import hub_id, root_of
from erase.models._weights import Weights, content_digest

LEFT_OUT = ("judge", MANIFEST)  # what scores the model, and what an earlier export said of it
_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".gguf", ".index.json")
_INDICES = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")


def folder(
    model: Model,
    edit: Edit,
    target: Path,
    *,
    card: bool = True,
    base_model: str = "",
    licence: str = "",
    scores: str = "",
    redact: str = "",
    reversal: bool = False,
) -> Path:
    """The edited model's folder.

    `card`: whether it gets a model card, which names `base_model` (an id on the hub, known of a model that comes from
    there), the `licence` where the source has no card of its own, and the figures in the file `scores`. `redact`: a
    secret under which the concepts' names are hashed. `reversal`: whether what undoes the edit is written beside it.

    Raises RunConflict if the target exists, ModelMismatch, BadEdit if a changed weight is not finite, BadModel if the
    source holds a link that leads out of it, BadOption, DiskFull.
    """
    changed = list(edit.changed(model))
    said = recipe(edit, redact=redact)
    with building_folder(target) as build:
        stale = copy_folder(model, edit, build) if model.path.is_dir() else lay_out(model, build)
        more: dict[str, Any] = {"edit": said, "rewritten": hashes_before(build, changed)}
        records = write_changes(model, changed, build)
        more["left_out"] = stale
        if card:
            about = read_about(model.path, base_model=base_model or hub_id(model.path), licence=licence, scores=scores)
            more |= write_card(build, said, about, title=title_of(edit, model.title, redact=redact))
        manifest = describe_folder(edit, build, records) | more
        (build / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    if reversal:
        write_reversal(model, edit, reversal_place(target))
    return target


def copy_folder(model: Model, edit: Edit, build: Path) -> list[str]:
    """Copies the source, and names what of it was left out."""
    files = source_files(model.path)
    stale = [file for file in files if holds_unedited(model, edit, file)]
    for file in (file for file in files if file not in stale):
        (build / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.path / file, build / file)
    return [file.as_posix() for file in stale]


def lay_out(model: Model, build: Path) -> list[str]:
    """Writes a single file as the folder that diffusers would make of it; nothing in it is left out."""
    with model.source.settings() as settings:
        for part in sorted({*model.parts(), "feature_extractor"}):
            for file in (settings / part).glob("*"):
                if file.is_file() and not file.name.endswith(_WEIGHTS):
                    (build / part).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, build / part / file.name)
        index = json.loads((settings / "model_index.json").read_text(encoding="utf-8"))
    for part in (name for name, kind in index.items() if isinstance(kind, list) and not (build / name).is_dir()):
        index[part] = [None, None]  # a safety checker, whose weights a single file does not hold
        index |= {"requires_safety_checker": False} if part == "safety_checker" else {}
    (build / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for part in (model.backbone, "vae", *model.text_components):
        is_text, weights = part in model.text_components, model.weights(part)
        entries = {
            f"text_model.{name}" if is_text and not name.startswith("text_projection") else name: Entry.made(
                partial(weights.tensor, name)
            )
            for name in weights.places
        }
        file = build / part / ("model.safetensors" if is_text else "diffusion_pytorch_model.safetensors")
        write_tensors(file, entries, metadata={"format": "pt"}, hashed=False)
    return []


def source_files(path: Path) -> list[Path]:
    """The model's files, relative and sorted; raises BadModel for a link out of the folder."""
    files, root = [], root_of(path).resolve()
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if relative.parts[0] in LEFT_OUT or not file.is_file():
            continue
        if not file.resolve().is_relative_to(root):
            raise BadModel(f"{file} is a link that leads out of the model; copy the file itself into the model first.")
        files.append(relative)
    return files


def holds_unedited(model: Model, edit: Edit, file: Path) -> bool:
    """Whether a file holds another copy of weights that the edit changes, which the export does not rewrite."""
    if not file.name.endswith(_WEIGHTS):
        return False
    if len(file.parts) == 1:
        return True
    if file.parts[0] not in {name.partition(".")[0] for name in edit.touches}:
        return False
    return model.path / file not in model.weights(file.parts[0]).files and file.name not in _INDICES


def write_changes(model: Model, changed: list[tuple[str, Tensor]], build: Path) -> list[dict[str, Any]]:
    """What changed in which tensor, after the copies of the weight files were rewritten."""
    by_file: dict[Path, dict[str, Tensor]] = {}
    records = []
    for (name, value), (file, stored) in zip(changed, stored_in(build, changed), strict=True):
        by_file.setdefault(file, {})[stored] = value
        records.append(_record(name, model.weight(name), value, file=file.relative_to(build).as_posix()))
    for file, tensors in by_file.items():
        rewrite(file, tensors)
    return records


def stored_in(build: Path, changed: list[tuple[str, Tensor]]) -> Iterator[tuple[Path, str]]:
    """The file of each changed tensor in a folder, and its key there."""
    parts: dict[str, Weights] = {}
    for name, _ in changed:
        component, _, key = name.partition(".")
        weights = parts.setdefault(component, Weights(build / component))
        stored = weights.stored_key(key)
        yield weights.where[stored], stored


def describe_folder(edit: Edit, build: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest's content."""
    return {
        "tool": f"erase {__version__}",
        "edit": recipe(edit),
        "base": edit.info.base,
        "files": dict(_hashes(build)),
        "changed": records,
    }


def hashes_before(build: Path, changed: list[tuple[str, Tensor]]) -> dict[str, str]:
    """The unedited hash of each file in which tensors are to be rewritten: what undoing has to give."""
    files = sorted({file for file, _ in stored_in(build, changed)})
    return {file.relative_to(build).as_posix(): sha256_of(file) for file in files}


def _hashes(build: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(build.rglob("*")):
        if file.is_file():
            yield file.relative_to(build).as_posix(), {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def _record(name: str, before: Tensor, after: Tensor, *, file: str) -> dict[str, Any]:
    moved, size = (float(torch.linalg.vector_norm(one)) for one in (after.double() - before.double(), before.double()))
    return {
        "tensor": name,
        "file": file,
        "relative_change": moved / size if size else None,
        "sha256_before": content_digest([(name, before)]),
        "sha256_after": content_digest([(name, after)]),
    }
