"""Measures what edits in a row do to each other: twenty objects of `emoji` erased one after the other.

python scripts/measure_sequence.py [--quick] [--method redirect] [--bare]

Each edit is made on the base model and added to those before it (`erase combine`), once plainly and once beside the
earlier ones (`erase edit --after`). The last line is one JSON object: `relapse_20` and `relapse_20_plain` are, with and
without `--after`, the largest over targets 1 to 5 of the share (0 to 1) of images in which the target is seen after all
edits less that after its own; `seen_own`, `seen_last` by target; `kept_20` and `kept_20_plain` the shares of other
objects that are still seen. Keeps are nine other objects and the four styles that images are asked for in, with
`--bare` the objects alone. `--quick` makes six edits and fewer images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure_erasure import ROOT, sampler_for

from erase.config.prompts import Row
from erase.context import RunContext
from erase.edit import Edit
from erase.evaluate.detections import examine
from erase.evaluate.detectors.classifier import Classifier
from erase.models import Model, open_model
from erase.run.options import make_edit, method_for
from erase.sampling.generate import generate
from erase.task import Target, Task, same

ORDER = (
    ("cat", "dog"), ("pizza", "cake"), ("car", "bus"), ("rose", "cactus"), ("rocket", "sailboat"), ("guitar", "book"),
    ("penguin", "turtle"), ("apple", "lemon"), ("crown", "umbrella"), ("house", "book"), ("bee", "turtle"),
    ("strawberry", "lemon"), ("octopus", "turtle"), ("banana", "lemon"), ("camera", "book"), ("whale", "turtle"),
    ("cherry", "lemon"), ("frog", "turtle"), ("tiger", "dog"), ("panda", "dog"),
)  # fmt: skip
STYLES = ("noto", "twemoji", "fluent", "blob")
WATCHED = 5  # of the first targets
KEEPS = ("dog", "cake", "bus", "cactus", "sailboat", "book", "turtle", "lemon", "umbrella")


def task_of(name: str, anchor: str, *, bare: bool) -> Task:
    prompts = ("{}", "a {} in noto style", "a picture of a {}")
    keeps = [f"object:{keep}" for keep in KEEPS] + [f"style:{style}" for style in STYLES if not bare]
    return Task([Target(name, "object", anchor, prompts=prompts)], keeps)


def edits_of(
    model: Model, order: Sequence[tuple[str, str]], options: argparse.Namespace, *, beside: bool
) -> list[Edit]:
    """The sum of all edits so far, after each of them."""
    made: list[Edit] = []
    sums: list[Edit] = []
    for name, anchor in order:
        task = task_of(name, anchor, bare=options.bare)
        chosen = method_for(options.method, {}, model=model, task=task)
        edit = make_edit(chosen, model, task, work=RunContext(), earlier=made if beside else ())
        made.append(edit)
        sums.append(sums[-1] + edit if sums else edit)
    return sums


def rows_of(names: Sequence[str], count: int) -> list[Row]:
    return [
        Row(f"a {name} in {STYLES[number % len(STYLES)]} style", number // len(STYLES), {"object": name})
        for name in names
        for number in range(count)
    ]


def seen(
    model: Model, edit: Edit, names: Sequence[str], *, count: int, options: argparse.Namespace
) -> dict[str, float]:
    """The share of each object's images in which it is seen."""
    rows = rows_of(names, count)
    paths = generate(model, rows, options.folder, edit=edit, sampler=sampler_for(model, options.steps))
    judge = Classifier(model.judge_folder / "object")  # type: ignore[operator]
    found = examine(judge, {str(number): path for number, path in enumerate(paths)}, name="object")
    hits: dict[str, list[bool]] = {name: [] for name in names}
    for number, row in enumerate(rows):
        labels = found[str(number)] or ()
        hits[row.labels["object"]].append(bool(labels) and same(labels[0].label, row.labels["object"]))
    return {name: sum(one) / len(one) for name, one in hits.items()}


def measure(model: Model, options: argparse.Namespace, *, beside: bool) -> dict[str, Any]:
    order = ORDER[: 6 if options.quick else len(ORDER)]
    count = 8 if options.quick else 24
    sums = edits_of(model, order, options, beside=beside)
    watched = [name for name, _ in order[:WATCHED]]
    own = {name: seen(model, sums[n], [name], count=count, options=options)[name] for n, name in enumerate(watched)}
    last = seen(model, sums[-1], watched, count=count, options=options)
    kept = seen(model, sums[-1], KEEPS, count=max(4, count // 3), options=options)
    return {
        "relapse": max(last[name] - own[name] for name in watched),
        "own": own,
        "last": last,
        "kept": sum(kept.values()) / len(kept),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="six edits, eight images a target")
    parser.add_argument("--method", default="redirect")
    parser.add_argument("--bare", action="store_true", help="keeps do not name the styles of the images")
    parser.add_argument("--steps", type=int, default=10, help="of sampling each image")
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "sequence")
    options = parser.parse_args()
    model = open_model("emoji")
    beside, plain = (measure(model, options, beside=which) for which in (True, False))
    print(
        json.dumps(
            {
                "edits": 6 if options.quick else len(ORDER),
                "relapse_20": beside["relapse"],
                "relapse_20_plain": plain["relapse"],
                "seen_own": beside["own"],
                "seen_last": beside["last"],
                "seen_own_plain": plain["own"],
                "seen_last_plain": plain["last"],
                "kept_20": beside["kept"],
                "kept_20_plain": plain["kept"],
            }
        )
    )


if __name__ == "__main__":
    main()
