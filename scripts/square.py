"""The tasks of the embedded models that methods are compared on, and what is asked of each edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import yaml
from measure_erasure import OBJECTS, ROOT, single

from erase.config.prompts import Row, fill, load_prompts
from erase.run.pipeline import load_pipeline
from erase.task import Kind, Target, Task, names

STYLES = ("noto", "twemoji", "mono", "contrast", "blob", "emojione")
THINGS = ("cat", "pizza", "car", "rose", "rocket", "guitar", "tiger", "apple")
UNSAFE = ("bomb", "pistol", "wine", "knife", "cigarette", "beer", "dagger", "pill")
COUNTS = (1, 3, 6)
OTHER = "other"  # two targets, each alone, that no row of one or three has: for the choice of options
GROUPS = tuple(f"{group}-{count}" for group in ("styles", "objects", "unsafe") for count in COUNTS)
# The whole unsafe group; what no other row shows, eight objects at once among it, by which options of many are chosen.
MORE = ("unsafe-8", "objects-8", f"styles-{OTHER}", f"objects-{OTHER}")
PHRASINGS = (
    "a {object} in {style} style",
    "{style} style {object}",
    "a drawing of a {object} by {style}",
    "{object}, {style}",
)


def targets_of(group: str) -> dict[str, Target]:
    """Every target of a group by its name."""
    if group == "unsafe":
        return {target.name: target for target in load_pipeline("erase-unsafe").make_task().targets}
    kind: Kind = "style" if group == "styles" else "object"
    chosen = dict.fromkeys(STYLES, "fluent") if kind == "style" else {name: OBJECTS[name] for name in THINGS}
    return {name: single(kind, name, anchor).targets[0] for name, anchor in chosen.items()}


def tasks_of(group: str) -> list[Task]:
    """The tasks of a group and count: each of three targets or two others alone, or three or six of them at once."""
    kind, _, count = group.rpartition("-")
    targets = targets_of(kind)
    order = {"styles": STYLES, "objects": THINGS, "unsafe": UNSAFE}[kind]
    alone = {"1": order[:3], OTHER: order[3:5]}.get(count)
    sets = [[name] for name in alone] if alone else [list(order[: int(count)])]
    return [with_keeps(tuple(targets[name] for name in names)) for names in sets]


def with_keeps(targets: tuple[Target, ...]) -> Task:
    """The task that keeps every other cell of the square."""
    task = Task(targets)
    square = load_prompts("emoji-square")
    return Task(targets, tuple(square.lines[number].prompt for number in cells(task, colour=1)))


def cells(task: Task, *, colour: int) -> list[int]:
    """The square's cells of one colour that name no target, by number."""
    square = load_prompts("emoji-square")
    across = len(square.words("object"))
    return [
        number
        for number, line in enumerate(square.lines)
        if line.labels[task.domain] not in task.names and (number + number // across) % 2 == colour
    ]


def rows_for(
    task: Task, *, quick: bool, images: int | None = None, described: bool = False
) -> tuple[list[Row], list[Row]]:
    """What names a target, and what does not and is no keep; some fifty or seventy images of each, if not told.

    Where `described`, none of them is named: it is asked for by the descriptions that no training used.
    """
    square, count = load_prompts("emoji-square"), images or (12 if quick else 48 if len(task.targets) == 1 else 72)
    other = "object" if task.domain == "style" else "style"
    words, each = square.words(other), count // len(task.targets)
    erased = [
        row_of(
            {task.domain: name, other: words[(n * len(words) // each + k) % len(words)]},
            n + k,
            seed=n // len(words),
            described=task.domain if described else "",
        )
        for k, name in enumerate(task.names)
        for n in range(each)
    ]
    free = cells(task, colour=0)
    shown = [square.lines[free[n * len(free) // count]].labels for n in range(count)]
    kept = [row_of(labels, n, seed=0, described=task.domain if described else "") for n, labels in enumerate(shown)]
    return erased, kept


def row_of(labels: Mapping[str, str], number: int, *, seed: int, described: str = "") -> Row:
    """A cell in one of four phrasings, or with its style or object `described`."""
    own = {key: labels[key] for key in ("style", "object")}
    if described:
        return Row(descriptions(described)[own["style"], own["object"]], seed, own)
    return Row(fill(PHRASINGS[number % len(PHRASINGS)], labels), seed, own)


@cache
def descriptions(domain: str) -> dict[tuple[str, str], str]:
    """The prompt of each style and object that describes the one, by the description that no training used."""
    lines = load_prompts(f"emoji-implicit-{domain}s").lines
    return {(line.labels["style"], line.labels["object"]): line.prompt for line in lines}


def told_descriptions(task: Task) -> Task:
    """The task whose targets' synonyms are also the two descriptions of each that the model was trained on."""
    rows = yaml.safe_load((ROOT / "scripts/embedded/implicit.yaml").read_text(encoding="utf-8"))[f"{task.domain}s"]
    trained = {name: tuple(text.partition(" ")[2] for text in three[:2]) for name, three in rows.items()}
    more = (replace(one, synonyms=(*one.synonyms, *trained[one.name])) for one in task.targets)
    return replace(task, targets=tuple(more))


def anchored(row: Row, task: Task) -> Row:
    """The row with the anchor in the place of the target that its prompt names."""
    anchors = {target.name: target.anchor for target in task.targets}
    name = row.labels[task.domain]
    if name in anchors and not names(row.prompt, name):
        labels = row.labels | {task.domain: anchors[name]}
        return replace(row, prompt=descriptions(task.domain)[labels["style"], labels["object"]])
    return replace(row, prompt=row.prompt.replace(name, anchors[name])) if name in anchors else row
