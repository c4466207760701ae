"""Builds a prior: the second moment of a caption corpus's token states, one matrix for a text encoder.

    python scripts/build_prior.py --model FOLDER --captions captions.txt --out prior.safetensors

Captions: a .txt of one each line, a .csv with a column `caption` or `prompt`, or a .json like COCO's, with a list
`annotations` of objects that have a `caption`. Closed forms take the file as their option `prior`; `refact`, which
edits the text encoder, takes one that was built with `--layer`.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from erase.errors import BadPrompts
from erase.methods.closed_form.prior import build_prior
from erase.methods.closed_form.states import fits
from erase.models import open_model


def main() -> None:
    """Writes the prior and says what it counts."""
    parser = argparse.ArgumentParser(description="Build a prior for closed-form edits from a file of captions.")
    parser.add_argument("--model", required=True, help="an embedded model or a diffusers folder")
    parser.add_argument("--captions", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--layer", type=int, help="also count what this layer reads that refact edits; -1: its default")
    given = parser.parse_args()
    model = open_model(given.model)
    captions = read_captions(given.captions)
    short = [caption for caption in captions if fits(model, caption)]
    prior = build_prior(model, short, layer=given.layer)
    prior.save(given.out)
    left_out = len(captions) - len(short)
    print(f"{given.out}: {prior.source.captions} captions, {prior.source.tokens} tokens; {left_out} too long, left out")


def read_captions(path: Path) -> list[str]:
    """The captions in a file; raises BadPrompts if there are none."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        captions = _column(path, text)
    elif path.suffix == ".json":
        captions = [str(entry["caption"]) for entry in json.loads(text).get("annotations", ()) if "caption" in entry]
    else:
        captions = text.splitlines()
    captions = [caption.strip() for caption in captions if caption.strip()]
    if not captions:
        raise BadPrompts(f"{path} holds no caption; expected lines, a column caption or prompt, or COCO's annotations.")
    return captions


def _column(path: Path, text: str) -> list[str]:
    reader = csv.DictReader(text.splitlines())
    name = next((name for name in ("caption", "prompt") if name in (reader.fieldnames or ())), None)
    if name is None:
        raise BadPrompts(f"{path} has no column caption or prompt; its columns: {', '.join(reader.fieldnames or ())}.")
    return [record[name] or "" for record in reader]


if __name__ == "__main__":
    main()
