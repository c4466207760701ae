"""Images to be scored: which row each one shows, on which side of the edit, and what the row is to the task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from erase.config.prompts import Row
from erase.task import Target, Task

Group = Literal["erased", "kept", "unrelated"]
Side = Literal["before", "after"]
GROUPS: tuple[Group, ...] = ("erased", "kept", "unrelated")
SIDES: tuple[Side, ...] = ("before", "after")


@dataclass(frozen=True)
class ScoredImage:
    """One image: its name, its row, its side, and its row's group."""

    id: str
    row: Row
    side: Side
    group: Group
    path: Path


def group_of(row: Row, task: Task) -> Group:
    """`erased` if the prompt asks for a target, `kept` if it names another concept of that kind, else `unrelated`."""
    if task.named_by(row.prompt, row.labels):
        return "erased"
    return "kept" if task.domain in row.labels else "unrelated"


def target_of(row: Row, task: Task) -> Target:
    """The target that an erased row asks for; the first one, if it asks for none."""
    return task.named_by(row.prompt, row.labels) or task.targets[0]
