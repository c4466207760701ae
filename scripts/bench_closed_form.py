"""Measures closed-form edits on checkpoints of full size against a literal loop of the published algorithm.

    python scripts/bench_closed_form.py            SD 1.x and SDXL, 1 to 1,000 targets with as many keeps
    python scripts/bench_closed_form.py --quick    the same keys from a part of the layers, in about a minute

Weights and prompt states are random, so that nothing has to be fetched; encoding the prompts is on neither side. The
last line is JSON, for each family:

speedup_1000        the published loop's seconds at 1,000 targets (one layer of the mean size is timed, times the number
                    of layers) over ours for all layers
max_relative_error  largest distance of an edited float32 weight from the loop's in float64, over the weight's size
job_over_copy       seconds to copy the file and rewrite its edited tensors over those of a plain copy, at most targets
peak_extra_mb       memory that the job takes beyond what it starts with
growth_1_to_1000    the job's seconds at 1,000 targets over those at one
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from erase.edit import TextMap
from erase.export._patching import rewrite
from erase.methods._ridge import gram, solve

LAMB = 0.5


@dataclass(frozen=True)
class Family:
    """A checkpoint's shape: prompt width, rows of each attention's keys and values, megabytes of all other weights."""

    width: int
    rows: tuple[int, ...]
    other_mb: int

    def part(self, share: int) -> Family:
        """Every so many-th layer and as small a part of the rest."""
        return Family(self.width, self.rows[::share], self.other_mb // share)

    def names(self) -> dict[str, int]:
        """Each edited weight's name and rows."""
        return {f"{number}.attn2.to_{role}.weight": rows for number, rows in enumerate(self.rows) for role in "kv"}


FAMILIES = {
    "sd1": Family(768, (320,) * 5 + (640,) * 5 + (1280,) * 6, 1640),
    "sdxl": Family(2048, (640,) * 10 + (1280,) * 60, 4480),
}
PARTS = {"sd1": 4, "sdxl": 10}


def main() -> None:
    """Prints each family's figures and, last, all of them as JSON."""
    parser = argparse.ArgumentParser(description="Measure closed-form edits against the published loop.")
    parser.add_argument("--quick", action="store_true", help="a part of the layers, fewer numbers of targets")
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append")
    given = parser.parse_args()
    results = {}
    for name in given.family or FAMILIES:
        family = FAMILIES[name].part(PARTS[name]) if given.quick else FAMILIES[name]
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(family, Path(folder), quick=given.quick)
        print(name, results[name])
    print(json.dumps(results))


def measure(family: Family, folder: Path, *, quick: bool) -> dict[str, float]:
    """A family's figures; the job comes first, for the loop's memory would hide its own."""
    counts = (1, 1000) if quick else (1, 10, 100, 1000)
    source = folder / "model.safetensors"
    write_checkpoint(family, source)
    copy = best(lambda: shutil.copyfile(source, folder / "copy.safetensors"), 2)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak that writing the checkpoint made
    before = memory_mb("VmRSS")
    jobs = {count: seconds(lambda count=count: job(family, source, count=count)) for count in counts}
    peak = memory_mb("VmHWM") - before
    errors = [error(family, count) for count in (counts if not quick else (1, 10))]
    ours, theirs = edit_seconds(family), loop_seconds(family)
    return {
        "speedup_1000": theirs / ours,
        "max_relative_error": max(errors),
        "job_over_copy": jobs[1000] / copy,
        "peak_extra_mb": peak,
        "growth_1_to_1000": jobs[1000] / jobs[1],
        "job_over_copy_1": jobs[1] / copy,
        "edit_seconds_1000": ours,
        "layers": len(family.names()),
    }


def random(rows: int, columns: int, *, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def states(family: Family, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Old, new and kept states as prompts have them, one each: a common mean and their own part, [count, width]."""
    common = random(1, family.width, seed=0)
    old, new, keep = (common + random(count, family.width, seed=seed) for seed in (1, 2, 3))
    return old, new, keep


def edit(family: Family, count: int) -> TextMap:
    """The published edit of so many targets with as many keeps, as one map."""
    old, new, keep = states(family, count)
    up, down = solve(old, new, gram(keep), erase_scale=1.0, lamb=LAMB)
    return TextMap(up.float(), down.float(), tuple(family.names()))


def changed(weight: Tensor, text_map: TextMap) -> Tensor:
    return (weight.double() + text_map.delta(weight)).to(weight.dtype)


def job(family: Family, source: Path, *, count: int) -> None:
    """Copies the checkpoint and rewrites what the edit changes, a tensor at a time."""
    target = source.with_name("edited.safetensors")
    text_map = edit(family, count)
    shutil.copyfile(source, target)
    for name in family.names():
        with safe_open(source, framework="pt") as file:  # opened anew: what was read stays mapped until it is closed
            weight = file.get_tensor(name)
        rewrite(target, {name: changed(weight, text_map)})


def edit_seconds(family: Family) -> float:
    """Seconds of the edit itself at 1,000 targets: the solve, and the change of every weight."""
    weights = [random(rows, family.width, seed=4).bfloat16() for rows in sorted(set(family.rows))]
    solving = seconds(lambda: edit(family, 1000))
    text_map = edit(family, 1000)
    each = {len(weight): best(lambda weight=weight: changed(weight, text_map), 2) for weight in weights}
    return solving + sum(each[rows] for rows in family.names().values())


def loop_seconds(family: Family) -> float:
    """Seconds of the published loop over all layers at 1,000 targets, from one layer of about the mean size."""
    mean = sum(family.rows) / len(family.rows)
    rows = min(family.rows, key=lambda one: abs(one - mean))
    old, new, keep = states(family, 1000)
    weight = random(rows, family.width, seed=4)
    one = seconds(lambda: published(weight, old, new, keep=keep))
    return one * sum(family.names().values()) / rows


def published(weight: Tensor, old: Tensor, new: Tensor, *, keep: Tensor) -> Tensor:
    """One layer's new weight by the published algorithm, concept by concept."""
    mat1, mat2 = LAMB * weight, LAMB * torch.eye(weight.shape[1], dtype=weight.dtype)
    for before, after in zip(torch.cat([old, keep]), torch.cat([new, keep]), strict=True):
        mat1 = mat1 + (weight @ after[:, None]) @ before[None]
        mat2 = mat2 + before[:, None] @ before[None]
    return mat1 @ torch.linalg.inv(mat2)


def error(family: Family, count: int) -> float:
    """How far our edit of the smallest layer is from the published one in float64, relative to its size."""
    weight = random(min(family.rows), family.width, seed=5)
    old, new, keep = (state.double() for state in states(family, count))
    expected = published(weight.double(), old, new, keep=keep)
    return float((changed(weight, edit(family, count)).double() - expected).norm() / expected.norm())


def write_checkpoint(family: Family, path: Path) -> None:
    """A bfloat16 checkpoint of the family's shape, the weights that are not edited as one tensor."""
    tensors = {name: random(rows, family.width, seed=6).bfloat16() for name, rows in family.names().items()}
    tensors["other.weight"] = torch.randint(0, 2**15, (family.other_mb * 2**19,), dtype=torch.int16).view(
        torch.bfloat16
    )
    save_file(tensors, path)


def memory_mb(key: str) -> float:
    """Memory that this process holds (`VmRSS`) or has held at most (`VmHWM`), as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def best(action: Callable[[], object], times: int) -> float:
    """The fewest seconds of several times."""
    return min(seconds(action) for _ in range(times))


if __name__ == "__main__":
    main()
