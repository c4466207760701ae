"""ESD from a bank of trajectories against the published loop, on one model and style: cost, and what it erases.

The published loop is written out below as its authors run it: a second, frozen network; one trajectory sampled up to a
random step for each iteration; the frozen predictions asked again at its end; one tuple a step, of one of the concept's
prompts, as their first code draws one of several. Both sides take equally many optimiser steps at the same rate on the
same prompts, which name objects beside the style: learnt under its bare name, a small model's style does not go from
whole prompts. Seconds and bytes of memory count from the loading of the weights on, with libraries imported before;
`processor` tells seconds of work, which other processes on the machine disturb less. Prints one JSON object, and writes
it to `--out`.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase.config.prompts import Row, load_prompts
from erase.context import RunContext
from erase.edit import Edit, describe
from erase.evaluate.images import ScoredImage, group_of
from erase.evaluate.score import score
from erase.methods.esd import ESD
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.layers import chosen_parameters
from erase.methods.training.session import target_texts
from erase.methods.training.trainer import draws
from erase.models import Condition, Model, open_model
from erase.run.pipeline import load_pipeline
from erase.sampling.generate import generate
from erase.sampling.sampler import Sampler
from erase.task import Target, Task

SIDES = ("literal", "bank")
NAMES = ("ua", "ira", "cra")
MEASURED = "measured.json"
RATIOS = (
    ("evaluations", "evaluations"),
    ("wall", "seconds"),
    ("processor", "processor_seconds"),
    ("peak", "peak_bytes"),
)


def published(method: ESD, model: Model, task: Task) -> tuple[Edit, int]:
    """The published loop's edit and how many evaluations it took; two networks are in memory."""
    info = describe(method, model, task)
    student, teacher = Denoiser.of(model), Denoiser.of(model)
    parameters = chosen_parameters(student.network, method.layers)
    optimiser = torch.optim.Adam(parameters.values(), lr=method.learning_rate)
    texts = target_texts(task)
    encoded = model.encode(["", *texts]).states.clone()
    for step in range(method.steps):
        generator = draws(method.seed, step)
        chosen = int(torch.randint(len(texts), (1,), generator=generator)) if len(texts) > 1 else 0
        states = torch.stack([encoded[0], encoded[1 + chosen]])
        inputs, times = partial_trajectory(teacher, states, method=method, generator=generator)
        with torch.no_grad():
            empty = teacher.predict(inputs, times, Condition(states[:1]))
            prompted = teacher.predict(inputs, times, Condition(states[1:]))
        predicted = student.predict(inputs, times, Condition(states[1:]))
        loss = torch.nn.functional.mse_loss(predicted, empty - method.eta * (prompted - empty))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    frozen = dict(teacher.network.named_parameters())
    deltas = {f"unet.{name}": value.detach() - frozen[name].detach() for name, value in parameters.items()}
    return Edit(info, deltas=deltas), student.evaluations + teacher.evaluations


@torch.no_grad()
def partial_trajectory(
    teacher: Denoiser, states: Tensor, *, method: ESD, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A noisy latent of the concept and its time: sampling is stopped at a random step of 50."""
    scheduler = teacher.sampler("ddim", 50)
    stop = int(torch.randint(50, (1,), generator=generator))
    latents = torch.randn(1, *teacher.shape, generator=generator) * scheduler.init_noise_sigma
    for time_ in scheduler.timesteps[:stop]:
        inputs = scheduler.scale_model_input(latents, time_).expand(2, -1, -1, -1)
        empty, prompted = teacher.predict(inputs, time_.expand(2), Condition(states)).chunk(2)
        guided = empty + method.sampling_guidance * (prompted - empty)
        latents = scheduler.step(guided, time_, latents).prev_sample
    at = scheduler.timesteps[stop]
    return scheduler.scale_model_input(latents, at), at.expand(1)


def measure(side: str, method: ESD, *, model: Model, task: Task, folder: Path) -> None:
    """Makes one side's edit and writes what it took; run in a process of its own, for its peak of memory."""
    # Importing libraries is no part of either side; they import their own modules when a class is first asked for.
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    held, started, worked = resident(), time.perf_counter(), time.process_time()
    if side == "literal":
        edit, evaluations = published(method, model, task)
    else:
        edit = method(model, task, work=RunContext(folder / "work"))
        evaluations = json.loads((folder / "work" / "cost.json").read_text(encoding="utf-8"))["evaluations"]
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    peak = most_resident() - held
    edit.save(folder / "edit.safetensors")
    spent = {"seconds": round(seconds, 2), "processor_seconds": round(worked, 2)}
    measured = {"evaluations": evaluations, **spent, "peak_bytes": peak}
    (folder / MEASURED).write_text(json.dumps(measured), encoding="utf-8")


def resident() -> int:
    """Bytes of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()


def most_resident() -> int:
    """The most bytes of memory that the process has held. Its `ru_maxrss` begins with what its parent held."""
    (kilobytes,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(kilobytes) * 1024


def rows_for(style: str, *, quick: bool) -> tuple[Row, ...]:
    """Prompts that name the style, another style, and none."""
    square, objects = load_prompts("emoji-square"), load_prompts("emoji-objects")
    every = list(square.axes["object"])
    words = every[:: 25 if quick else 5]
    named = words if quick else every[::2]
    erased = square.rows(seeds=[0] if quick else [0, 1, 2, 3], where={"style": [style], "object": named})
    others = [word for word in square.axes["style"] if word != style][: 2 if quick else 7]
    kept = square.rows(seeds=[0], where={"style": others, "object": words[: 2 if quick else 6]})
    unrelated = objects.rows(seeds=[0] if quick else [0, 1, 2], where={"object": words})
    return (*erased, *kept, *unrelated)


def figures(model: Model, task: Task, edit: Edit, *, folder: Path, quick: bool) -> dict[str, Any]:
    """UA, IRA and CRA of an edit with their intervals, by the model's own judge."""
    rows = rows_for(task.targets[0].name, quick=quick)
    paths = generate(model, rows, folder / "after", edit=edit, sampler=Sampler(steps=5 if quick else 25))
    shots = [
        ScoredImage(path.stem, row, "after", group_of(row, task), path) for row, path in zip(rows, paths, strict=True)
    ]
    scores = score(task, shots, judge=model.judge_folder)
    found = {name: scores.find(name) for name in NAMES}
    return {name: _interval(figure) for name, figure in found.items()}


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both sides, each trained in a process of its own, then judged."""
    model, task = open_model(options.model), task_of(options)
    result: dict[str, Any] = {"model": str(options.model), "style": options.style, "steps": options.steps}
    for side in SIDES:
        place = folder / side
        place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--side", side, "--folder", str(place), *_again(options)]
        subprocess.run(command, check=True)
        result[side] = json.loads((place / MEASURED).read_text(encoding="utf-8"))
        if model.judge_folder is not None:
            edit = Edit.load(place / "edit.safetensors")
            result[side] |= figures(model, task, edit, folder=place, quick=options.quick)
    for key, name in RATIOS:
        result[f"{key}_ratio"] = round(result["literal"][name] / result["bank"][name], 2)
    return result


def task_of(options: argparse.Namespace) -> Task:
    """The style to erase, asked for in the phrasings of the pipeline that erases a style."""
    return Task((Target(options.style, "style", prompts=load_pipeline("erase-style").task.prompts),))


def method_of(options: argparse.Namespace) -> ESD:
    """ESD with the options of the command line; the published loop's batch is one."""
    return ESD(
        steps=options.steps,
        learning_rate=options.learning_rate,
        layers=options.layers,
        trajectories=options.trajectories,
        sampling_steps=options.sampling_steps,
    )


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.side:
        parts = {"model": open_model(options.model), "task": task_of(options), "folder": options.folder}
        measure(options.side, method_of(options), **parts)
        return
    with tempfile.TemporaryDirectory() as temporary:
        result = compare(options, options.folder or Path(temporary))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="an embedded model's name or a folder")
    parser.add_argument("--style", default="noto")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps, 300 unless --quick")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--layers", default="x-strict")
    parser.add_argument("--trajectories", type=int, default=8)
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help="a few steps and images: shows that it runs, measures little"
    )
    parser.add_argument("--out", type=Path, help="where the JSON is written, too")
    parser.add_argument("--folder", type=Path, help="where edits and images are left")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.steps = options.steps or (10 if options.quick else 300)
    return options


def _again(options: argparse.Namespace) -> list[str]:
    """The options of a side's own process."""
    names = ("model", "style", "steps", "learning_rate", "layers", "trajectories", "sampling_steps", "threads")
    return [part for name in names for part in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]


def _interval(figure: Any) -> Any:
    if figure is None:
        return None
    return {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}


if __name__ == "__main__":
    main()
