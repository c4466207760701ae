"""Measures closed-form edits on checkpoints of full size against a literal loop of the published algorithm.

    python scripts/bench_closed_form.py            SD 1.x and SDXL, 1 to 1,000 targets with as many keeps
    python scripts/bench_closed_form.py --quick    the same keys from narrow models, in about a minute

The files have every tensor of the published models, in bfloat16, with random weights, so that nothing has to be
fetched. The last line is JSON, for each family:

speedup_1000        the published loop's seconds at 1,000 targets (one layer of about the mean size is timed, and scaled
                    to all layers by their rows) over ours for all layers: the solve, and the change of every weight
max_relative_error  largest distance of an edited float32 weight from the loop's in float64, over the weight's size
job_over_copy       seconds of the whole job (open the file, encode the prompts, solve, hash the base, write the edited
                    checkpoint) over those of a plain copy and of encoding the same prompts by itself, at the number
                    of targets where that is most
job_over_bare_copy  the same without encoding on either side
peak_extra_mb       memory that the job takes beyond what it starts with, at most; `text_encoder_mb` is the text
                    encoders' part of it in float32, which the job runs them in
growth_1_to_1000    the job's seconds at 1,000 targets over those at one, without encoding

The copy and the job both end when the file is on the disk (fsync) and both find the source in the page cache; a copy
is made before and after each job, and the mean of the two counts, for the disk's speed varies. `copy_to_cache_seconds`
is the copy without its way to the disk. The job is what `erase edit` and `erase export --to checkpoint` do, with UCE as
its official code has it today: last tokens, and keeps of last tokens.

Encoding is, in the job and by itself, from nothing to the prompts' states: the encoders' weights are read for it. By
itself nothing else goes on, while the job hashes its base meanwhile. The text encoders read all prompts of up to ten
targets. Of more they read one a batch, and the states of the others are random, for a thousand would take minutes;
those others count on both sides with what a prompt among 16 takes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from full_size import SHAPES, Shape, write_checkpoint
from torch import Tensor

from erase.edit import TextMap
from erase.export.checkpoint import checkpoint
from erase.methods.closed_form.ridge import gram, solve
from erase.methods.uce import UCE
from erase.models import Encoding, Model, open_model
from erase.models.text import unpadded
from erase.task import Target, Task

Batch = tuple[tuple[str, ...], bool]  # prompts, and whether their padding is encoded
LAMB = 0.5
WHOLE = 10  # targets up to which all prompts are read


def main() -> None:
    """Prints each family's figures and, last, all of them as JSON."""
    parser = argparse.ArgumentParser(description="Measure closed-form edits against the published loop.")
    parser.add_argument("--quick", action="store_true", help="narrow models, fewer numbers of targets")
    parser.add_argument("--family", choices=sorted(SHAPES), action="append")
    parser.add_argument("--counts", type=int, nargs="+", help="numbers of targets; 1 and 1000 are always among them")
    parser.add_argument("--folder", type=Path, help="where the checkpoints are written; removed at the end")
    given = parser.parse_args()
    results = {}
    for name in given.family or SHAPES:
        shape = SHAPES[name].narrow() if given.quick else SHAPES[name]
        if given.folder:
            given.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            counts = sorted({1, 1000, *(given.counts or (() if given.quick else (10, 100)))})
            results[name] = measure(shape, Path(folder), counts=counts, quick=given.quick)
        print(name, json.dumps(results[name]), flush=True)
    print(json.dumps(results))


def measure(shape: Shape, folder: Path, *, counts: Sequence[int], quick: bool) -> dict[str, float]:
    """A family's figures; the jobs come first, for the loop's memory would hide their own."""
    source = folder / "model.safetensors"
    rows, width = write_checkpoint(shape, source)
    copies, jobs = [copy_seconds(source)], {}
    for count in counts:
        jobs[count] = job(source, count=count)
        copies.append(copy_seconds(source))
    copy = {count: (copies[at][1] + copies[at + 1][1]) / 2 for at, count in enumerate(counts)}
    encoding = {count: encoding_seconds(source, one.read) for count, one in jobs.items()}
    each = prompt_seconds(source)
    bare = {count: one.total - encoding[count] for count, one in jobs.items()}
    whole = {count: encoding[count] + each * one.unread for count, one in jobs.items()}
    ours, theirs = edit_seconds(rows, width), loop_seconds(rows, width)
    return {
        "speedup_1000": theirs / ours,
        "max_relative_error": max(error(rows, width, count) for count in counts),
        "job_over_copy": max((bare[count] + whole[count]) / (copy[count] + whole[count]) for count in counts),
        "job_over_bare_copy": max(bare[count] / copy[count] for count in counts),
        "peak_extra_mb": max(one.peak_mb for one in jobs.values()),
        "text_encoder_mb": text_encoder_mb(shape),
        "growth_1_to_1000": bare[1000] / bare[1],
        "job_seconds_1": bare[1],
        "job_seconds_1000": bare[1000],
        "encoding_seconds_1": encoding[1],
        "prompt_seconds": each,
        "copy_seconds": sum(copy.values()) / len(copy),
        "copy_to_cache_seconds": sum(cached for cached, _ in copies) / len(copies),
        "edit_seconds_1000": ours,
        "loop_seconds_1000": theirs,
        "layers": len(rows),
        "file_mb": source.stat().st_size / 2**20,
    }


@dataclass(frozen=True)
class Job:
    """Seconds of a whole job, the batches of prompts that were read in it, and how many prompts were not.

    `peak_mb`: the memory that it took.
    """

    total: float
    read: tuple[Batch, ...]
    unread: int
    peak_mb: float


def job(source: Path, *, count: int) -> Job:
    """The whole job at so many targets and keeps; its result is removed."""
    target, peaks = source.with_name("edited.safetensors"), Peak()
    warm(source)
    with peaks:
        begun = time.perf_counter()
        model = open_model(source)
        batches = counted_encoding(model, whole=count <= WHOLE)
        method = UCE(**UCE.paper, lamb=LAMB)
        edit = method(model, task_of(count))
        checkpoint(model, edit, target)
        total = time.perf_counter() - begun
    target.unlink()
    read = tuple(batches if count <= WHOLE else ((prompts[:1], True) for prompts, _ in batches))
    unread = sum(len(prompts) for prompts, _ in batches) - sum(len(prompts) for prompts, _ in read)
    return Job(total, read, unread, peaks.mb)


def task_of(count: int) -> Task:
    """So many targets, which become one anchor, and as many keeps, each a number, which CLIP spells by its digits."""
    targets = tuple(Target(f"old {number}", "object", "new") for number in range(count))
    return Task(targets, tuple(f"keep {number}" for number in range(count)))


def counted_encoding(model: Model, *, whole: bool) -> list[Batch]:
    """The batches of prompts that are encoded from now on; unless `whole`, all but each first get random states."""
    batches: list[Batch] = []
    encode = model.encode

    def counted(prompts: Sequence[str], *, padding: bool = True) -> Encoding:
        batches.append((tuple(prompts), padding))
        found = encode(prompts, padding=padding) if whole else encode(prompts[:1])
        return found if whole else spread(found, encode_ids(model, prompts), seed=len(batches) - 1)

    model.encode = counted  # type: ignore[method-assign]
    return batches


def encoding_seconds(source: Path, batches: Sequence[Batch]) -> float:
    """Seconds from a file to the states of prompts, with nothing beside it."""
    warm(source)
    begun = time.perf_counter()
    model = open_model(source)
    for prompts, padding in batches:
        model.check_prompts(prompts)
        encoded(model, prompts, padding=padding)
    return time.perf_counter() - begun


def prompt_seconds(source: Path) -> float:
    """Seconds that the text encoders take for a prompt among 16."""
    model, prompts = open_model(source), [f"old {number}" for number in range(16)]
    encoded(model, prompts[:1], padding=True)
    return seconds(lambda: encoded(model, prompts, padding=False)) / len(prompts)


def encoded(model: Model, prompts: Sequence[str], *, padding: bool) -> Encoding:
    """What `Model.encode` gives, without the hashing of the base that it starts."""
    return model.join(model.encoders if padding else unpadded(model.encoders, prompts), prompts)


def encode_ids(model: Model, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The tokens of prompts and how many each has."""
    encoder = model.encoders[0]
    tokens = encoder._tokenizer(
        list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    return tokens["input_ids"], tokens["attention_mask"].sum(1)


def spread(one: Encoding, tokens: tuple[Tensor, Tensor], *, seed: int) -> Encoding:
    """The states of one prompt, with something of each other prompt's own added to all of them."""
    ids, lengths = tokens
    part = one.parts[0]
    own = torch.randn(len(ids), *part.states.shape[1:], generator=torch.Generator().manual_seed(seed))
    pooled = None if one.pooled is None else one.pooled.expand(len(ids), -1) + own[:, 0, : one.pooled.shape[1]]
    states = own.mul_(part.states.std()).add_(part.states)
    return Encoding((replace(part, states=states, ids=ids, lengths=lengths),), pooled)


class Peak:
    """The most memory that this process holds at a time, in MB beyond what it held before, files mapped included."""

    def __enter__(self) -> Peak:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was let go before must not be there to be taken again
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self._before = memory_mb("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.mb = memory_mb("VmHWM") - self._before


def memory_mb(key: str) -> float:
    """Memory that this process holds (`VmRSS`) or has held at most (`VmHWM`), as Linux counts it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def copy_seconds(source: Path) -> tuple[float, float]:
    """Seconds of a plain copy, into the page cache and onto the disk."""
    target = source.with_name("copy.safetensors")
    warm(source)
    begun = time.perf_counter()
    shutil.copyfile(source, target)
    cached = time.perf_counter() - begun
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    total = time.perf_counter() - begun
    target.unlink()
    return cached, total


def warm(path: Path) -> None:
    """Reads a file once, so that all that follows finds it in the page cache, and waits for the disk to be idle."""
    os.sync()
    with path.open("rb", buffering=0) as file:
        while file.read(2**24):
            pass


def text_encoder_mb(shape: Shape) -> float:
    sizes = (torch.Size(one).numel() for name, one in shape.tensors().items() if name.startswith("text_encoder"))
    return sum(sizes) * 4 / 2**20


def random(rows: int, columns: int, *, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def states(width: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Old, new and kept states as prompts have them, one each: a common mean and their own part, [count, width]."""
    common = random(1, width, seed=0)
    old, new, keep = (common + random(count, width, seed=seed) for seed in (1, 2, 3))
    return old, new, keep


def edit(rows: Sequence[int], width: int, count: int) -> TextMap:
    """The published edit of so many targets with as many keeps, as one map."""
    old, new, keep = states(width, count)
    up, down = solve(old, new, gram(keep), erase_scale=1.0, lamb=LAMB)
    return TextMap(up.float(), down.float(), tuple(str(number) for number in range(len(rows))))


def changed(weight: Tensor, text_map: TextMap) -> Tensor:
    return (weight.double() + text_map.delta(weight)).to(weight.dtype)


def edit_seconds(rows: Sequence[int], width: int) -> float:
    """Seconds of the edit itself at 1,000 targets: the solve, and the change of every weight."""
    weights = [random(one, width, seed=4).bfloat16() for one in sorted(set(rows))]
    solving = seconds(lambda: edit(rows, width, 1000))
    text_map = edit(rows, width, 1000)
    each = {len(weight): best(partial(changed, weight, text_map), 2) for weight in weights}
    return solving + sum(each[one] for one in rows)


def loop_seconds(rows: Sequence[int], width: int) -> float:
    """Seconds of the published loop over all layers at 1,000 targets, from one layer of about the mean size."""
    mean = sum(rows) / len(rows)
    chosen = min(rows, key=lambda one: abs(one - mean))
    old, new, keep = states(width, 1000)
    weight = random(chosen, width, seed=4)
    return seconds(lambda: published(weight, old, new, keep=keep)) * sum(rows) / chosen


def published(weight: Tensor, old: Tensor, new: Tensor, *, keep: Tensor) -> Tensor:
    """One layer's new weight by the published algorithm, concept by concept."""
    mat1, mat2 = LAMB * weight, LAMB * torch.eye(weight.shape[1], dtype=weight.dtype)
    for before, after in zip(torch.cat([old, keep]), torch.cat([new, keep]), strict=True):
        mat1 = mat1 + (weight @ after[:, None]) @ before[None]
        mat2 = mat2 + before[:, None] @ before[None]
    return mat1 @ torch.linalg.inv(mat2)


def error(rows: Sequence[int], width: int, count: int) -> float:
    """How far our edit of the smallest layer is from the published one in float64, relative to its size."""
    weight = random(min(rows), width, seed=5)
    old, new, keep = (state.double() for state in states(width, count))
    expected = published(weight.double(), old, new, keep=keep)
    return float((changed(weight, edit(rows, width, count)).double() - expected).norm() / expected.norm())


def seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def best(action: Callable[[], object], times: int) -> float:
    """The fewest seconds of several times."""
    return min(seconds(action) for _ in range(times))


if __name__ == "__main__":
    main()
