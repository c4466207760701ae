"""Images per second of generating and scoring, against one pipeline call an image and then CLIP an image, in one run.

python scripts/bench_generate.py --model emoji --images 96
Prints JSON: speedup, two_process_ratio (of two processes of one thread each to one), mean_abs_difference (of 1).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from erase.evaluate.detectors._clip import ClipFolder
from erase.evaluate.generate import ddim, generate, start
from erase.evaluate.ranks import generate_share, this_place
from erase.evaluate.sampler import Sampler
from erase.evaluate.shots import read_picture
from erase.models import Model, open_model
from erase.prompts import Row, load_prompts


def plain(model: Model, rows: tuple[Row, ...], sampler: Sampler, folder: Path) -> list[Path]:
    """One call of diffusers' pipeline an image, each then saved and read by CLIP alone."""
    pipe = model.pipeline()
    pipe.scheduler = ddim(pipe)
    paths = []
    for number, row in enumerate(rows):
        image = pipe(
            row.prompt,
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            latents=start(pipe, row.seed),
        ).images[0]
        paths.append(folder / f"{number}.png")
        image.save(paths[-1])
    towers = clip_of(model)
    for row, path in zip(rows, paths, strict=True):
        with Image.open(path) as image:
            _ = towers.pictures([image.convert("RGB")]) @ towers.texts([row.prompt]).T
    return paths


def ours(model: Model, rows: tuple[Row, ...], sampler: Sampler, folder: Path) -> list[Path]:
    """Batches of one size, each prompt encoded once; CLIP reads many images at a time."""
    paths = list(generate(model, rows, folder, sampler=sampler))
    towers = clip_of(model)
    pictures = [picture for picture in map(read_picture, paths) if picture is not None]
    for first in range(0, len(pictures), 32):
        _ = towers.pictures(pictures[first : first + 32])
    towers.texts([row.prompt for row in rows])
    return paths


def clip_of(model: Model) -> ClipFolder:
    folder = model.judge_folder
    if folder is None:
        raise SystemExit("the model has no judge/clip to score with")
    return ClipFolder(folder / "clip")


def timed(work: Any, *arguments: Any) -> tuple[float, list[Path]]:
    began = time.perf_counter()
    paths = work(*arguments)
    return time.perf_counter() - began, paths


def difference(left: list[Path], right: list[Path]) -> float:
    """The mean absolute difference of the images, of 1."""
    pairs = [(read_picture(one), read_picture(other)) for one, other in zip(left, right, strict=True)]
    arrays = [(np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)) for one, other in pairs]
    return float(np.mean([np.abs(one - other).mean() / 255 for one, other in arrays]))


def processes(options: argparse.Namespace, count: int) -> float:
    """Seconds in which so many processes of one thread each, already warm, make the images."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--worker", folder, "--model", options.model]
        command += ["--images", str(options.images), "--steps", str(options.steps)]
        said = {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
        workers = [
            subprocess.Popen(command, env=os.environ | said | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
            for rank in range(count)
        ]
        answers = [json.loads(worker.communicate()[0]) for worker in workers]
        return float(max(answer["seconds"] for answer in answers))


def worker(options: argparse.Namespace) -> None:
    """One process's share, timed without what loading takes."""
    torch.set_num_threads(1)
    model, rows, sampler = inputs(options)
    generate(model, rows[:1], Path(options.worker) / "warm", sampler=sampler)
    place = this_place()
    began = time.perf_counter()
    generate_share(model, place.share(rows), Path(options.worker), place=type(place)(), sampler=sampler)
    print(json.dumps({"seconds": time.perf_counter() - began}))


def inputs(options: argparse.Namespace) -> tuple[Model, tuple[Row, ...], Sampler]:
    rows = load_prompts(options.prompts).rows(seeds=[0])[: options.images]
    return open_model(options.model), rows, Sampler(steps=options.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--prompts", default="emoji-square")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--worker", default="")
    options = parser.parse_args()
    if options.worker:
        worker(options)
        return
    model, rows, sampler = inputs(options)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("plain", "ours", "warm")]
        for place in places:
            place.mkdir()
        plain(model, rows[:1], sampler, places[2])
        slow, one_by_one = timed(plain, model, rows, sampler, places[0])
        fast, batched = timed(ours, model, rows, sampler, places[1])
        apart = difference(one_by_one, batched)
    ratio = processes(options, 1) / processes(options, 2)
    told = {"speedup": slow / fast, "two_process_ratio": ratio, "mean_abs_difference": apart}
    print(json.dumps(told | {"images": len(rows), "images_per_second": len(rows) / fast}))


if __name__ == "__main__":
    main()
