"""How an erasure depends on its bank: ESD from few and from many trajectories, of few and of many steps.

python scripts/measure_bank.py [--quick] [--steps 300] [--folder FOLDER]

Every edit takes equally many optimiser steps at the same rate, on the style and prompts of `bench_trained.py`; only the
number of trajectories and the steps that are kept of each differ. The last line is one JSON object: a list of banks
with `trajectories`, `sampling_steps`, `every`, what they took (`evaluations`, `seconds`), and `ua`, `ira`, `cra` with
their intervals (95 %, Wilson).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_trained import figures, task_of

from erase.context import RunContext
from erase.methods.esd import ESD
from erase.models import Model, open_model

# Trajectories, steps of each, and which of them are kept: each row differs from the first in one thing. Five is the
# fewest, one for each prompt.
BANKS = ((10, 20, 1), (5, 20, 1), (40, 20, 1), (10, 5, 1), (10, 20, 10))


def measure(bank: tuple[int, int, int], model: Model, *, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What one bank costs and how well is erased from it."""
    named = dict(zip(("trajectories", "sampling_steps", "every"), bank, strict=True))
    method, task = ESD(steps=options.steps, learning_rate=1e-3, layers="x-strict", **named), task_of(options)
    started = time.perf_counter()
    edit = method(model, task, work=RunContext(folder / "work"))
    seconds = round(time.perf_counter() - started, 2)
    evaluations = json.loads((folder / "work" / "cost.json").read_text(encoding="utf-8"))["evaluations"]
    found = figures(model, task, edit, folder=folder, quick=options.quick)
    return named | {"evaluations": evaluations, "seconds": seconds} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two banks, a few steps and images")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps, 300 unless --quick")
    parser.add_argument("--style", default="noto")
    parser.add_argument("--folder", type=Path, help="where images are left")
    options = parser.parse_args()
    options.steps = options.steps or (10 if options.quick else 300)
    torch.set_num_threads(1)
    model, results = open_model("emoji"), []
    with tempfile.TemporaryDirectory() as temporary:
        for bank in BANKS[: 2 if options.quick else None]:
            folder = (options.folder or Path(temporary)) / "-".join(map(str, bank))
            folder.mkdir(parents=True, exist_ok=True)
            results.append(measure(bank, model, folder=folder, options=options))
            print(json.dumps(results[-1]), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
