"""Two verified edits of a tiny model, packs of them, and a forger who writes every hash anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from erase.edit import Edit, EditInfo
from erase.evaluate.detect import Given
from erase.evaluate.detections import Finding
from erase.evaluate.protocol import load_protocol
from erase.evaluate.questions import make_cases
from erase.evaluate.result import FILE, FIXED
from erase.evaluate.verify import Edited, draw, verify
from erase.evidence import pack
from erase.evidence.stored import EDIT, MANIFEST, as_text
from erase.files import content_hash, sha256_of
from erase.models import Model
from erase.task import Target, Task

TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("twemoji",))
PROTOCOL = """\
version: "3"
description: a test
source: a test
detector: {name: judge, version: emoji-v1, threshold: 0.5}
sampler: {steps: 2, guidance: 1.0, batch: 16}
seeds: [0, 1, 2, 3]
prompts:
  - {role: erased, aspect: name, templates: ["a {object} in {word} style"], axes: {object: [cat, dog, car, fish]}}
  - role: kept
    aspect: others
    fill: keeps
    templates: ["a {object} in {word} style"]
    axes: {object: [cat, dog, car, fish]}
"""
Values = dict[str, Any]


def noise(model: Model, seed: int) -> Edit:
    """An edit that moves every site far, so that all images differ."""
    generator = torch.Generator().manual_seed(seed)
    deltas = {site.name: 3 * torch.randn(site.rows, site.columns, generator=generator) for site in model.sites()}
    info = EditInfo("noise", {}, json.loads(json.dumps(asdict(TASK))), model.family, model.fingerprint)
    return Edit(info, deltas=deltas)


def verified(model: Model, folder: Path, *, seed: int = 0) -> Path:
    """The folder of a verification by a judge that knows every image, and in it the edit's file, as a run has it."""
    return judged(model, folder, seed=seed)[0]


def judged(model: Model, folder: Path, *, seed: int = 0) -> tuple[Path, Given]:
    """The folder of a verification, and the judge that knows every image of it."""
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(PROTOCOL, encoding="utf-8")
    protocol, edit, known = load_protocol(str(folder / "mine.yaml")), noise(model, seed), dict[bytes, tuple[str, int]]()
    edit.save(folder / EDIT)
    edited = Edited(model, edit, TASK, path=folder / EDIT)
    cases = make_cases(protocol, TASK)
    for side, one in enumerate((Edited(model, None, None), edited)):
        for (prompt, _), path in draw(one, protocol, cases, folder=folder / "images"):
            with Image.open(path) as image:
                known.setdefault(image.convert("RGB").tobytes(), (prompt, side))

    def detect(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        asked = [known[picture.tobytes()] for picture in pictures]
        return [[Finding(text.split()[3], 0.1 if "noto" in text and side else 0.9, "style")] for text, side in asked]

    given = Given(detectors={"judge": detect})
    verify(model, edited, protocol, task=TASK, given=given, folder=folder)
    return folder, given


def values(folder: Path, name: str) -> Values:
    return dict(json.loads((folder / name).read_text(encoding="utf-8")))


def change(folder: Path, name: str, how: Callable[[Values], object]) -> None:
    """Changes the values in one of a pack's files."""
    told = values(folder, name)
    how(told)
    (folder / name).write_text(as_text(told), encoding="utf-8")


def hash_anew(folder: Path, *, result: bool = True) -> None:
    """Writes everything anew that follows from a pack's other files, as a forger without the key would.

    `result`: also the result's own digest, and which plan it says it was made under.
    """
    if result:
        change(folder, FILE, lambda told: told.update(fixed=sha256_of(folder / FIXED)))
        change(folder, FILE, _digest)
    manifest = values(folder, MANIFEST)
    pack.seal(folder, images=manifest["images"] == "carried", date=manifest["dates"]["packed"])


def _digest(told: Values) -> None:
    told["digest"] = content_hash({key: value for key, value in told.items() if key != "digest"})
