"""What every training stage shares: seeded batches, a schedule, a log, checkpoints that a killed run goes on from."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from icons import BUILD
from torch import Tensor, nn

SIDE = 64  # pixels of a training picture
# Where a picture may lie: pixels down and right of the middle.
PLACES = ((0, 0), (-2, -2), (-2, 2), (2, -2), (2, 2))


def options(doc: str | None, *, steps: int, batch: int, lr: float) -> argparse.Namespace:
    """The command line of a stage."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    return chosen


def load_icons() -> Tensor:
    """The icons at training size with room for shifts, [styles, objects, 3, 72, 72] in -1 .. 1."""
    pictures = np.load(BUILD / "icons.npy", mmap_mode="r")
    styles, objects, canvas = pictures.shape[:3]
    step = canvas // SIDE
    small = pictures.reshape(styles, objects, SIDE, step, SIDE, step, 3).mean((3, 5))
    tensor = torch.from_numpy(np.ascontiguousarray(small)).float().permute(0, 1, 4, 2, 3) / 127.5 - 1
    return nn.functional.pad(tensor.flatten(0, 1), (4, 4, 4, 4), value=1.0).unflatten(0, (styles, objects))


def shifted(picture: Tensor, down: int, right: int) -> Tensor:
    """The 64 x 64 window of a padded picture that shows it moved by some pixels."""
    top, left = 4 - down, 4 - right
    return picture[..., top : top + SIDE, left : left + SIDE]


def in_bfloat16() -> torch.autocast:
    """Autocast to bfloat16 where the processor has instructions for it: without them it is a hundred times slower."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass
class Stage:
    """One training run in a folder: `weights` maps names to modules, all of which the checkpoint holds."""

    name: str
    weights: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    steps: int
    lr: float
    quiet: bool = False
    every_seconds: float = 180.0
    done: int = 0
    seconds: float = 0.0
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = BUILD / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "checkpoint.pt").exists():
            self._restore(torch.load(self.folder / "checkpoint.pt", weights_only=True))

    def run(
        self,
        loss_of: Callable[[int], tuple[Tensor, dict[str, float]]],
        after: Callable[[int], None],
        reduce: Callable[[], None] = lambda: None,
        *,
        until: int | None = None,
    ) -> None:
        """Trains to the last step, or `until` another; `loss_of(step)` draws a batch from a generator seeded by it.

        `reduce` runs between the gradients and the optimizer, `after` once the weights have moved.
        """
        last = min(self.steps, until or self.steps)
        started, saved, shown = time.monotonic() - self.seconds, time.monotonic(), time.monotonic()
        while self.done < last:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(self.done)
            loss, parts = loss_of(self.done)
            loss.backward()
            reduce()
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            after(self.done)
            self.done += 1
            self.seconds = time.monotonic() - started
            if time.monotonic() - shown > 20 or self.done == last:
                shown = time.monotonic()
                self._log({"loss": loss.item()} | parts)
            if time.monotonic() - saved > self.every_seconds or self.done == last:
                saved = time.monotonic()
                self.save()

    def rate(self, step: int) -> float:
        """Learning rate: 200 steps of warming up, then a cosine to a hundredth."""
        warm = min(1.0, (step + 1) / 200)
        return self.lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    def save(self) -> None:
        """Writes the checkpoint; of several processes the one that is not quiet does."""
        if self.quiet:
            return
        state: dict[str, Any] = {name: module.state_dict() for name, module in self.weights.items()}
        state |= {"optimizer": self.optimizer.state_dict(), "done": self.done, "seconds": self.seconds}
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / "checkpoint.pt")

    def _restore(self, state: dict[str, Any]) -> None:
        for name, module in self.weights.items():
            module.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self.seconds = state["done"], state["seconds"]

    def _log(self, parts: dict[str, float]) -> None:
        if self.quiet:
            return
        row = {"step": self.done, "seconds": round(self.seconds), **{k: round(v, 5) for k, v in parts.items()}}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, step: int, *, decay: float) -> None:
    """Moves the moving average towards the model, faster in the first steps."""
    keep = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)
    for mean, value in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(value)
