"""Measures, on a tiny random model of every family, that what holds for one model holds for all.

    python scripts/measure_families.py            all families, 20 steps
    python scripts/measure_families.py --quick    4 steps, in well under a minute

For each family: by how much (mean of 255) a closed-form edit moves the target's images and a keep's; what a callable,
which knows the base's images, says of them under a protocol of its own; whether the folder and the LoRA that were
exported, loaded by diffusers alone, draw the edited images; by how much (of 1, before decoding and after) images differ
from plain calls of the family's pipeline. Random weights say nothing of how well a concept is erased. The last line is
JSON: `families`, `largest_difference_from_plain_call`, `names`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from erase.config.prompts import Row
from erase.edit import Edit
from erase.evaluate.detect import Given
from erase.evaluate.detections import Finding
from erase.evaluate.protocol import load_protocol
from erase.evaluate.verify import Edited, verify
from erase.export.folder import folder
from erase.export.lora import lora
from erase.methods.uce import UCE
from erase.models import Model, conditions_of, open_model
from erase.sampling.draw import Output, sample_batch
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler
from erase.task import Keep, Target, Task
from tests.tiny_families import FAMILIES, tiny_family

TARGET, KEPT = "a cat in noto style", "a dog in firefox style"
SEEDS = tuple(range(16))  # as many as the verdict's intervals take
TASK = Task((Target("noto", "style", "blob", prompts=("a cat in {} style",)),), (Keep("firefox", "style"),), (KEPT,))
EXACT = UCE(lamb=1e-6, preserve_scale=1000.0, phrasings="own")  # what is kept does not move
EVERY = 8  # of the rows is compared with plain calls, one image each
STRENGTH = 4.0  # random networks heed a prompt little
PROTOCOL = """\
version: "1"
description: whether the base's images are still there
source: scripts/measure_families.py
detector: {{name: callable, version: nearest, threshold: 0.5}}
sampler: {{steps: {steps}, guidance: 4.0, batch: 16, size: 16}}
seeds: {seeds}
prompts:
  - {{role: erased, aspect: name, fill: names, templates: ["a cat in {{word}} style"]}}
  - {{role: kept, aspect: others, fill: related, related: {{noto: [firefox]}}, templates: ["a dog in {{word}} style"]}}
"""


def main() -> None:
    """Prints a line for each family and, last, all figures as JSON."""
    parser = argparse.ArgumentParser(description="Measure every family on a tiny random model.")
    parser.add_argument("--quick", action="store_true", help="4 steps instead of 20")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for family in FAMILIES:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            model = open_model(tiny_family(family, Path(place) / "model"))
            found[family] = measure(model, Path(place), steps=4 if given.quick else 20)
        found[family]["seconds"] = round(time.monotonic() - started, 1)
        print(family, json.dumps(found[family]), flush=True)
    largest = max(max(one["plain_call_latents"], one["plain_call_pixels"]) for one in found.values())
    print(json.dumps({"families": found, "largest_difference_from_plain_call": largest, "names": list(found)}))


def measure(model: Model, place: Path, *, steps: int) -> dict[str, Any]:
    """One family's figures."""
    sampler = Sampler(steps=steps, guidance=4.0, size=16, batch=16)
    edit = EXACT(model, TASK).scaled(STRENGTH)
    before, after = (drawn(model, sampler, edit=one) for one in (None, edit))
    moved = np.abs(before - after).mean(axis=(1, 2, 3))
    exported = folder(model, edit, place / "folder")
    return {
        "target_moved": round(float(moved[: len(SEEDS)].mean()), 4),
        "keep_moved": round(float(moved[len(SEEDS) :].mean()), 4),
        "verified_by_a_callable": verified(model, edit, place, steps=steps),
        "folder_differs": round(float(np.abs(drawn(open_model(exported), sampler) - after).max()), 4),
        "lora_differs": round(with_lora(model, lora(model, edit, place / "lora", loss=0.0), sampler, after=after), 4),
        **{f"plain_call_{name}": from_plain(model, sampler, output) for name, output in OUTPUTS.items()},
    }


OUTPUTS: dict[str, Output] = {"latents": "latent", "pixels": "pt"}


def rows() -> tuple[Row, ...]:
    """The target's prompt and the keep's under each seed."""
    return tuple(Row(prompt, seed) for prompt in (TARGET, KEPT) for seed in SEEDS)


def drawn(model: Model, sampler: Sampler, *, edit: Edit | None = None) -> Any:
    """The rows' pictures, [rows, height, width, 3] of 255."""
    return np.stack([np.asarray(image).astype(float) for _, image in sample(model, rows(), sampler, edit=edit)])


def plain(pipe: Any, row: Row, sampler: Sampler, *, output: str) -> Tensor:
    """One image by a call of diffusers' pipeline alone."""
    image: Tensor = pipe(
        row.prompt,
        num_inference_steps=sampler.steps,
        guidance_scale=sampler.guidance,
        generator=torch.Generator().manual_seed(row.seed),
        output_type=output,
        **sampler.sides,
    ).images
    return image


def from_plain(model: Model, sampler: Sampler, output: Output) -> float:
    """The largest difference of one batch from plain calls, of latents or of pixels from 0 to 1."""
    pipe = model.pipeline()
    conditions = conditions_of(pipe, [TARGET, KEPT])
    some = rows()[::EVERY]
    ours = sample_batch(pipe, some, conditions=conditions, sampler=sampler, output=output)
    theirs = torch.cat([plain(pipe, row, sampler, output=output) for row in some])
    return float((ours - theirs).abs().max())


def with_lora(model: Model, file: Path, sampler: Sampler, *, after: Any) -> float:
    """The largest difference (of 255) of the edited images from plain calls of the base with the LoRA loaded."""
    pipe = model.pipeline()
    pipe.load_lora_weights(str(file))
    theirs = [255 * plain(pipe, row, sampler, output="pt")[0].permute(1, 2, 0).numpy() for row in rows()[::EVERY]]
    return float(np.abs(np.stack(theirs).round() - after[::EVERY]).max())


def verified(model: Model, edit: Edit, place: Path, *, steps: int) -> str:
    """`passed`, or the reasons against the edit, by a callable that knows the images of the base."""
    protocol = place / "nearest.yaml"
    protocol.write_text(PROTOCOL.format(steps=steps, seeds=list(SEEDS)), encoding="utf-8")
    known = drawn(model, load_protocol(str(protocol)).sampler)
    words = [word for word in ("noto", "firefox") for _ in SEEDS]

    def nearest(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        """What the base shows where a picture is its own to 0.2 of 255, as a LoRA or a batch may round."""
        found = []
        for picture in pictures:
            far = np.abs(known - np.asarray(picture.convert("RGB")).astype(float)).mean(axis=(1, 2, 3))
            found.append([Finding(words[int(far.argmin())], float(far.min() < 0.2), "style")])
        return found

    result = verify(
        model,
        Edited(model, edit, TASK),
        load_protocol(str(protocol)),
        task=TASK,
        given=Given(detectors={"callable": nearest}),
        folder=place / "verified",
    )
    return "; ".join(f"{reason.kind}: {reason.text}" for reason in result.verdict.reasons) or "passed"


if __name__ == "__main__":
    main()
