"""A single file laid out as the folder that diffusers would make of it, or the folder of a transformer's file."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from erase.edit import Edit
from erase.export.parts.copies import WEIGHTS, edited_in
from erase.export.parts.writing import Entry, write_tensors
from erase.models import Model
from erase.models.storage.weights import Weights


def lay_out(model: Model, edit: Edit, build: Path) -> list[str]:
    """Writes a single file as a folder; names the copies of edited tensors in it, which are left out."""
    with model.source.settings() as settings:
        for part in sorted({*model.parts(), "feature_extractor"}):
            for file in (settings / part).glob("*"):
                if file.is_file() and not file.name.endswith((*WEIGHTS, ".index.json")):
                    (build / part).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, build / part / file.name)
        index = json.loads((settings / "model_index.json").read_text(encoding="utf-8"))
    for part in (name for name, kind in index.items() if isinstance(kind, list) and not (build / name).is_dir()):
        index[part] = [None, None]  # a safety checker, whose weights a single file does not hold
        index |= {"requires_safety_checker": False} if part == "safety_checker" else {}
    (build / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for text in model.texts:
        if text.causal:
            spell_tokenizer(build / text.tokenizer)
    for part in (model.backbone, "vae", *model.text_components):
        _write_part(model, part, build / part)
    return [f"{model.path.name}: {key}" for key in sorted(edited_in(model, edit.touches)[1])]


def _write_part(model: Model, part: str, folder: Path) -> None:
    is_text, weights = part in model.text_components, model.weights(part)
    if isinstance(weights, Weights):  # of the folder that goes with a transformer's file
        for file in (*weights.files, *weights.folder.glob("*.index*.json")):
            shutil.copyfile(file, folder / file.name)
        return
    entries = {
        f"text_model.{name}" if is_text and not name.startswith("text_projection") else name: Entry.made(
            partial(weights.tensor, name)
        )
        for name in weights.places
    }
    file = folder / ("model.safetensors" if is_text else "diffusion_pytorch_model.safetensors")
    write_tensors(file, entries, metadata={"format": "pt"}, hashed=False)


def spell_tokenizer(folder: Path) -> None:
    """Writes a CLIP tokenizer's `vocab.json` and `merges.txt`, which versions of transformers before 5 read.

    The newer `tokenizer.json` that lies there holds both.
    """
    file = folder / "tokenizer.json"
    if not file.is_file() or (folder / "vocab.json").exists():
        return
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = dict(content["model"]["vocab"])
    vocabulary |= {token["content"]: token["id"] for token in content.get("added_tokens", ())}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    text = json.dumps(dict(sorted(vocabulary.items(), key=lambda item: item[1])), ensure_ascii=False)
    (folder / "vocab.json").write_text(text, encoding="utf-8")
    lines = "".join(f"{line}\n" for line in ("#version: 0.2", *merges))
    (folder / "merges.txt").write_text(lines, encoding="utf-8", newline="\n")
