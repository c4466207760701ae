"""Images per second of generating and scoring, against one pipeline call an image and then CLIP an image, in one run.

python scripts/bench_generate.py [--quick] [--model emoji] [--images 128] [--steps 25]

Both sides load what they need, make the images, save them, and score them by CLIP. The last line is one JSON object:
speedup, two_process_ratio (the rate of two processes of one thread each to that of one of one thread, all warm),
beside_ratio (the rate of as many processes as a run starts by itself to that of one of all threads, starts included),
mean_abs_difference (of 1), and images per second of each. `--quick` makes fewer in few steps, for which no process is
started. `--beside` measures beside_ratio alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from erase.config.prompts import Row, load_prompts
from erase.evaluate.detections import AT_ONCE
from erase.evaluate.networks.clip import ClipFolder
from erase.models import Model, open_model
from erase.sampling.generate import generate, sample, stream
from erase.sampling.pictures import read_picture
from erase.sampling.pipelined import follow
from erase.sampling.ranks import stream_share, this_rank
from erase.sampling.sampler import Sampler

Made = TypeVar("Made")


def plain(model: Model, rows: tuple[Row, ...], folder: Path, *, sampler: Sampler) -> list[Path]:
    """One call of diffusers' pipeline an image, each then saved and read by CLIP alone."""
    pipe = model.pipeline()
    paths = []
    for number, row in enumerate(rows):
        image = pipe(
            row.prompt,
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            generator=torch.Generator().manual_seed(row.seed),
        ).images[0]
        paths.append(folder / f"{number}.png")
        image.save(paths[-1])
    towers = clip_of(model)
    for row, path in zip(rows, paths, strict=True):
        with Image.open(path) as image:
            _ = towers.pictures([image.convert("RGB")]) @ towers.texts([row.prompt]).T
    return paths


def ours(model: Model, rows: tuple[Row, ...], folder: Path, *, sampler: Sampler) -> list[Path]:
    """The loop of `erase run`: batches of one size, each prompt encoded once, images read while the next are made."""
    towers = clip_of(model)
    made: list[Path] = []

    def paths() -> Iterator[Path]:
        for _, path in stream(model, rows, folder, sampler=sampler):
            made.append(path)
            yield path

    def read(batch: Sequence[Path]) -> torch.Tensor:
        return towers.pictures([picture for path in batch if (picture := read_picture(path)) is not None])

    vectors = torch.cat(follow(paths(), read, size=AT_ONCE))
    _ = (vectors * towers.texts([row.prompt for row in rows])).sum(1)
    return made


def clip_of(model: Model) -> ClipFolder:
    return ClipFolder(judge_of(model) / "clip")


def judge_of(model: Model) -> Path:
    if model.judge_folder is None:
        raise SystemExit("the model has no judge/clip to score with")
    return model.judge_folder


def timed(work: Callable[[], list[Made]]) -> tuple[float, list[Made]]:
    began = time.perf_counter()
    paths = work()
    return time.perf_counter() - began, paths


def difference(left: list[Path], right: list[Path]) -> float:
    """The mean absolute difference of the images, of 1."""
    pairs = [(read_picture(one), read_picture(other)) for one, other in zip(left, right, strict=True)]
    arrays = [(np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)) for one, other in pairs]
    return float(np.mean([np.abs(one - other).mean() / 255 for one, other in arrays]))


def processes(options: argparse.Namespace, count: int) -> float:
    """Seconds in which so many processes of one thread each make the images, from when all are loaded and warm."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--worker", folder, "--model", options.model]
        command += ["--images", str(options.images), "--steps", str(options.steps), "--prompts", options.prompts]
        places = {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
        workers = [
            subprocess.Popen(
                command,
                env=os.environ | places | {"RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]
        if any(worker.stdout is None or worker.stdout.readline() != "warm\n" for worker in workers):
            raise SystemExit("a worker has failed; what it said stands above")
        began = time.perf_counter()
        for worker in workers:
            if worker.stdin is not None:
                worker.stdin.write("go\n")
                worker.stdin.flush()
        # the first one ends when all images are there
        done = workers[0].stdout.readline() if workers[0].stdout else ""
        seconds = time.perf_counter() - began
        if any(worker.wait() for worker in workers) or done != "done\n":
            raise SystemExit("a worker has failed; what it said stands above")
        return seconds


def worker(options: argparse.Namespace) -> None:
    """One process's share, begun when the others are warm too."""
    torch.set_num_threads(1)
    model, rows, sampler = inputs(options)
    place = this_rank(Path(options.worker))
    with place.present():
        generate(model, rows[:1], Path(options.worker) / f"warm-{place.rank}", sampler=sampler)
        print("warm", flush=True)
        sys.stdin.readline()
        for _ in stream_share(model, rows, Path(options.worker) / "images", place=place, sampler=sampler):
            pass
        print("done", flush=True)


def inputs(options: argparse.Namespace) -> tuple[Model, tuple[Row, ...], Sampler]:
    rows = load_prompts(options.prompts).rows(seeds=[0])[: options.images]
    return open_model(options.model), rows, Sampler(steps=options.steps)


def main() -> None:
    options = parse()
    if options.worker:
        worker(options)
        return
    model, rows, sampler = inputs(options)
    if options.beside:
        print(json.dumps(beside(model, rows, sampler)))
        return
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("plain", "ours", "warm")]
        for place in places:
            place.mkdir()
        plain(model, rows[:1], places[2], sampler=sampler)
        slow, one_by_one = timed(lambda: plain(model, rows, places[0], sampler=sampler))
        fast, batched = timed(lambda: ours(model, rows, places[1], sampler=sampler))
        apart = difference(one_by_one, batched)
    one, two = (processes(options, count) for count in (1, 2))
    rates = {"plain": slow, "ours": fast, "one_process": one, "two_processes": two}
    told = {"speedup": slow / fast, "two_process_ratio": one / two, "mean_abs_difference": apart, "images": len(rows)}
    told |= {"images_per_second": {name: round(len(rows) / took, 2) for name, took in rates.items()}}
    print(json.dumps(told | beside(model, rows, sampler)))


def beside(model: Model, rows: tuple[Row, ...], sampler: Sampler) -> dict[str, float]:
    """The rate of as many processes as a run starts by itself to that of one of all threads, each starting anew."""
    whole, alone = timed(lambda: [hashed(image) for _, image in sample(model, rows, sampler)])
    with tempfile.TemporaryDirectory() as folder:
        took, paths = timed(lambda: list(generate(model, rows, Path(folder), sampler=sampler)))
        same = sum(one == hashed(Image.open(path)) for one, path in zip(alone, paths, strict=True))
    figures = {"beside_ratio": whole / took, "one_of_all_threads_per_second": len(rows) / whole}
    return figures | {"beside_per_second": len(rows) / took, "same_bits": same / len(rows)}


def hashed(image: Image.Image) -> int:
    return hash(image.convert("RGB").tobytes())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 images of 5 steps")
    parser.add_argument("--beside", action="store_true", help="only how much several processes gain by themselves")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--prompts", default="emoji-square")
    parser.add_argument("--images", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.images = options.images or (64 if options.quick else 128)
    options.steps = options.steps or (5 if options.quick else 25)
    return options


if __name__ == "__main__":
    main()
