"""Measures a method on the embedded model: every style, ten objects and the unsafe group, each erased alone.

python scripts/measure_erasure.py [--quick] [--method uce] [--options '{"lamb": 0.5}'] [--groups styles objects unsafe]

After each erasure, every prompt of the square that names a target is drawn with three seeds, half of the others with
one, and all are judged. The last line is one JSON object: `styles`, `objects`, `unsafe`, each with `ua`, `ira`, `cra`
as [value, low, high] (95 %, Wilson, over all images of the group) and, in `each`, the same for every erasure. Images
stay in the folder, and those that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from erase.config.prompts import Row, load_prompts
from erase.edit import Edit
from erase.evaluate.images import ScoredImage, Side, group_of
from erase.evaluate.score import Scores, score
from erase.evaluate.statistics.intervals import wilson
from erase.models import Model, open_model
from erase.run.options import method_for
from erase.run.pipeline import load_pipeline
from erase.sampling.generate import generate
from erase.sampling.sampler import Sampler
from erase.task import Kind, Target, Task

ROOT = Path(__file__).parent.parent
FIGURES = ("ua", "ira", "cra")
GROUPS = ("styles", "objects", "unsafe")
# Every style becomes the first one, and the first one the fifth; objects become one of their own kind.
ANCHORS = {"style": {"fluent": "twemoji"}}
OBJECTS = {
    "cat": "dog",
    "tiger": "rabbit",
    "fish": "whale",
    "apple": "lemon",
    "pizza": "hamburger",
    "rose": "sunflower",
    "car": "bus",
    "rocket": "airplane",
    "guitar": "umbrella",
    "crown": "camera",
}


def synonyms(domain: str) -> dict[str, tuple[str, ...]]:
    rows = yaml.safe_load((ROOT / f"scripts/embedded/{domain}s.yaml").read_text(encoding="utf-8"))
    return {name: tuple(row["synonyms"]) for name, row in rows.items()}


def single(kind: Kind, name: str, anchor: str) -> Task:
    """The task that erases one concept, asked for in five ways, and keeps every prompt of the square without it."""
    prompts = load_pipeline(f"erase-{kind}").task.prompts
    keeps = [line.prompt for line in load_prompts("emoji-square").lines if line.labels[kind] != name]
    return Task((Target(name, kind, anchor, synonyms(kind)[name], prompts),), tuple(keeps))


def all_tasks(*, quick: bool) -> dict[str, dict[str, Task]]:
    """Every task by its group and name."""
    styles = load_prompts("emoji-square").words("style")
    chosen, objects = (styles[2:4], ["cat"]) if quick else (styles, list(OBJECTS))
    return {
        "styles": {name: single("style", name, ANCHORS["style"].get(name, styles[0])) for name in chosen},
        "objects": {name: single("object", name, OBJECTS[name]) for name in objects},
        "unsafe": {"unsafe": load_pipeline("erase-unsafe").make_task()},
    }


def rows_for(task: Task, *, quick: bool) -> list[Row]:
    """What names a target with three seeds, and every second other cell of the square, as on a chessboard, with one."""
    square = load_prompts("emoji-square")
    kept = [row for row in square.rows(seeds=[0]) if group_of(row, task) != "erased"]
    every, seeds = (17, [0]) if quick else (2, [0, 1, 2])
    across = len(square.words("object"))
    chosen = [row for number, row in enumerate(kept) if (number + number // across) % every == 0]
    return [*square.rows(seeds=seeds, where={task.domain: task.names})[: 24 if quick else None], *chosen]


def sampler_for(model: Model, steps: int, edit: Edit | None = None) -> Sampler:
    """The sampler that suits an embedded model; one without T5 needs no zeros in its place, but for what guides."""
    if model.family == "stable-diffusion-3":
        guides = edit is not None and (edit.guidance or edit.gated)
        return Sampler(steps=min(steps, 16), guidance=3.0, max_sequence_length=0 if guides else 1)
    return Sampler(steps=steps)


def shots_of(model: Model, rows: Sequence[Row], task: Task, *, steps: int = 25, **made: Any) -> list[ScoredImage]:
    side: Side = "after" if made.get("edit") else "before"
    paths = generate(model, rows, sampler=sampler_for(model, steps, made.get("edit")), **made)
    return [ScoredImage(path.stem, row, side, group_of(row, task), path) for row, path in zip(rows, paths, strict=True)]


def measure(model: Model, task: Task, method: Any, *, images: Path, quick: bool) -> tuple[Scores, float]:
    """The scores of one erasure and the seconds that making the edit took."""
    started = time.monotonic()
    edit = method(model, task)
    seconds = time.monotonic() - started
    shots = shots_of(model, rows_for(task, quick=quick), task, folder=images, edit=edit)
    return score(task, shots, judge=model.judge_folder), seconds


def figures_of(scores: Scores) -> dict[str, list[float]]:
    found = {name: scores.find(name) for name in FIGURES}
    return {name: [f.value, f.low, f.high, f.n] for name, f in found.items() if f}


def together(each: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Each figure's mean over erasures, with Wilson's interval over all their images."""
    summary: dict[str, Any] = {}
    for name in FIGURES:
        value, images = fmean(one[name][0] for one in each.values()), sum(int(one[name][3]) for one in each.values())
        summary[name] = [round(part, 4) for part in (value, *wilson(round(value * images), images))]
    rounded = {key: {name: [round(v, 4) for v in one[name]] for name in FIGURES} for key, one in each.items()}
    return summary | {"each": rounded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three erasures, few images, under a minute")
    parser.add_argument("--method", default="uce")
    parser.add_argument("--options", type=json.loads, default={}, help="the method's options as JSON")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--images", type=Path, default=ROOT / ".build" / "measured")
    options = parser.parse_args()
    model = open_model("emoji")
    results: dict[str, Any] = {"method": options.method, "options": options.options}
    chosen = all_tasks(quick=options.quick)
    for group, tasks in ((group, chosen[group]) for group in options.groups):
        each = {}
        for name, task in tasks.items():
            method = method_for(options.method, options.options, model=model, task=task)
            scores, seconds = measure(model, task, method, images=options.images, quick=options.quick)
            each[name] = figures_of(scores)
            print(f"{name:<10} edit {seconds:.1f} s  {json.dumps(each[name])}", flush=True)
        results[group] = together(each)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
