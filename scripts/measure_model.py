"""Measures an embedded model: does it draw what it is asked for, does its judge see it, how fast, how large.

python scripts/measure_model.py [--model emoji-flow] [--quick] [--judge]

The last line is one JSON object: `style_accuracy`, `object_accuracy` over the whole square of styles and objects,
`synonym_accuracy` of objects called by another word, `implicit_accuracy` of what is described by a text that does not
name it and that no training used (`implicit_object_accuracy`, `implicit_style_accuracy` are its halves), `judge_style`,
`judge_object` on real icons that were moved, scaled and recoloured in ways that the judge was not trained on,
`images_per_second`, `megabytes` of weights, those that it borrows from another model included.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from erase.config.prompts import Row, load_prompts
from erase.evaluate.detectors.classifier import Classifier
from erase.models import Model, open_model
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler

ATLAS = Path(__file__).parent / "embedded" / "icons.png"
SIDE = 64
SEEDS = (0, 1, 2)
SAMPLERS = {  # by family
    "stable-diffusion": Sampler(steps=25),
    "stable-diffusion-3": Sampler(steps=16, guidance=3.0, max_sequence_length=1),
}


def draw(model: Model, rows: Sequence[Row]) -> tuple[list[Tensor], float]:
    """Each row's image [3, 64, 64] in -1 .. 1, and the images a second, loading not counted."""
    images, started = [], 0.0
    for _, image in sample(model, rows, SAMPLERS[model.family]):
        images.append(to_tensor(image))
        if len(images) == 32:  # the first batch also loads the model
            started = time.monotonic()
    speed = (len(images) - 32) / (time.monotonic() - started) if len(images) > 32 else math.nan
    return images, speed


def to_tensor(image: Image.Image) -> Tensor:
    array = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1)


def accuracy(model: Model, images: Sequence[Tensor], labels: Sequence[str], *, domain: str) -> float:
    """Share of images that the judge takes for their labels; what it takes the others for is printed."""
    pictures = [Image.fromarray(((one.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()) for one in images]
    judge = Classifier(model.path / "judge" / domain)
    seen = [found[0].label for start in range(0, len(pictures), 32) for found in judge(pictures[start : start + 32])]
    wrong = Counter((label, other) for label, other in zip(labels, seen, strict=True) if other != label)
    for (label, other), count in wrong.most_common(5):
        print(f"  {domain}: {label} taken for {other} {count} times")
    return 1 - wrong.total() / len(labels)


def unseen_views(icon: Image.Image, rng: np.random.Generator) -> Image.Image:
    """An icon moved by 5 to 6 pixels, scaled by 0.80 to 0.86 or 1.17 to 1.22, turned, and recoloured in four ways.

    The style classifier was trained on shifts and scales below and above these, the object classifier on those below
    5 pixels and within 16 %; neither on these, nor on any of these turns and recolourings.
    """
    side = SIDE * float(rng.uniform(0.80, 0.86) if rng.random() < 0.5 else rng.uniform(1.17, 1.22))
    down, right = rng.uniform(5, 6, 2) * rng.choice([-1, 1], 2)
    big = icon.resize((SIDE * 4, SIDE * 4), Image.Resampling.BICUBIC)
    scale, middle = 4 * SIDE / side, SIDE / 2
    matrix = (scale, 0, 2 * SIDE - scale * (middle + right), 0, scale, 2 * SIDE - scale * (middle + down))
    moved = big.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor="white")
    moved = moved.rotate(float(rng.uniform(-5, 5)), Image.Resampling.BICUBIC, fillcolor="white")
    for change in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness):
        moved = change(moved).enhance(float(rng.uniform(0.85, 1.15)))
    gamma = float(rng.uniform(0.85, 1.18))
    return moved.point([round(255 * (value / 255) ** gamma) for value in range(256)] * 3)


def real_icons(styles: Sequence[str], objects: Sequence[str]) -> Iterator[tuple[Image.Image, str, str]]:
    """Every real icon with its style and object."""
    with Image.open(ATLAS) as atlas:
        sheet = atlas.convert("RGB")
    for row, thing in enumerate(objects):
        for column, style in enumerate(styles):
            left, top = column * SIDE, row * SIDE
            yield sheet.crop((left, top, left + SIDE, top + SIDE)), style, thing


def measure_judge(model: Model, *, views: int) -> dict[str, float]:
    square = load_prompts("emoji-square")
    icons = list(real_icons(square.words("style"), square.words("object")))
    rng = np.random.default_rng(7)
    images = [to_tensor(unseen_views(icon, rng)) for _ in range(views) for icon, _, _ in icons]
    return {
        "judge_style": accuracy(model, images, [style for _, style, _ in icons] * views, domain="style"),
        "judge_object": accuracy(model, images, [thing for _, _, thing in icons] * views, domain="object"),
    }


def measure_drawing(model: Model, *, quick: bool) -> dict[str, float]:
    square = load_prompts("emoji-square").rows(seeds=SEEDS[:1] if quick else SEEDS)[:: 4 if quick else 1]
    images, speed = draw(model, square)
    measured = {
        f"{domain}_accuracy": accuracy(model, images, [row.labels[domain] for row in square], domain=domain)
        for domain in ("style", "object")
    }
    measured |= {"images_per_second": speed, "images": len(images)}
    for name, prompts, domain in (
        ("synonym", "emoji-synonyms", "object"),
        ("implicit_object", "emoji-implicit-objects", "object"),
        ("implicit_style", "emoji-implicit-styles", "style"),
    ):
        rows = load_prompts(prompts).rows(seeds=SEEDS[:1])[:: 9 if quick else 1]
        others, _ = draw(model, rows)
        measured[f"{name}_accuracy"] = accuracy(model, others, [row.labels[domain] for row in rows], domain=domain)
        measured[f"{name}_images"] = len(rows)
    halves = measured["implicit_object_accuracy"], measured["implicit_style_accuracy"]
    return measured | {"implicit_accuracy": sum(halves) / 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images, in under a minute")
    parser.add_argument("--judge", action="store_true", help="the judge alone, without drawing")
    parser.add_argument("--model", default="emoji", help="the model's name or folder")
    options = parser.parse_args()
    model, started = open_model(options.model), time.monotonic()
    measured = measure_judge(model, views=1 if options.quick else 8)
    if not options.judge:
        measured |= measure_drawing(model, quick=options.quick)
    weights = sum(file.stat().st_size for file in model.path.rglob("*.safetensors"))
    measured |= {"megabytes": weights / 1e6, "seconds": time.monotonic() - started}
    print(json.dumps({key: round(value, 4) for key, value in measured.items()}))


if __name__ == "__main__":
    main()
