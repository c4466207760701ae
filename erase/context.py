"""What a method that takes long is given beside its task: where it tells how far it is, and where it keeps its work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from erase.edit import Edit
from erase.files import write_atomically


class Report(Protocol):
    """Who is told how far a method is."""

    def __call__(self, text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None: ...


class Observe(Protocol):
    """Who looks at images: makes some of each prompt under an edit and tells the labels' shares in them."""

    def __call__(
        self, edit: Edit | None, prompts: Sequence[str], *, labels: Sequence[str], images: int, clip: str, template: str
    ) -> list[list[float]]:
        """Shares [prompts][labels], by CLIP; `clip` is its folder, "" that of the model's own judge."""


def in_silence(text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
    """Nothing: tells nobody."""


@dataclass(frozen=True)
class RunContext:
    """Where a method works.

    `folder` takes checkpoints, the losses and their curve, `banks` the banks that later runs of any method on the same
    model use again; None keeps them in memory alone. `seconds` is the least time between two checkpoints. `observe`
    makes and labels images for methods that look at what they do.
    """

    folder: Path | None = None
    banks: Path | None = None
    report: Report = in_silence
    seconds: float = 60.0
    observe: Observe | None = None

    @property
    def checkpoint(self) -> Path | None:
        """Where an unfinished training is kept."""
        return self.folder / "checkpoint.safetensors" if self.folder else None

    def tell_cost(self, evaluations: int, seconds: float) -> None:
        """Writes down what a method took: samples through the network, and time."""
        if self.folder is not None:
            cost = {"evaluations": evaluations, "seconds": round(seconds, 2)}
            write_atomically(self.folder / "cost.json", json.dumps(cost) + "\n")

    def clear(self) -> None:
        """Removes the checkpoint of a training whose edit is saved, and what a killed process left of one."""
        for path in sorted(self.folder.glob("*checkpoint.safetensors*")) if self.folder else ():
            path.unlink()
