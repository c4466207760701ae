"""Trajectories of the frozen model, sampled once: what erasure losses learn from.

Sampling with guidance predicts, at every step, for the empty prompt and for the prompt. Both are kept beside the noisy
latent that the network saw, so that training asks no teacher. On disk a bank is a folder named by a hash of all that it
depends on, with one file for each batch of trajectories: a sampling that was stopped goes on, and a later run of any
method on the same model and concept samples nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from erase.context import RunContext
from erase.errors import BadOption
from erase.files import content_hash, write_atomically
from erase.methods.training.denoiser import Denoiser, Sampling
from erase.models import Condition
from erase.models.storage.weights import content_digest

EMPTY, PROMPTED, ALSO = 0, 1, 2  # where a tuple's predictions stand


@dataclass(frozen=True)
class Trajectory:
    """One sampling: its prompt, its seed, and further prompts that are predicted for at each of its steps."""

    prompt: str
    seed: int
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Which trajectories a bank holds; all name equally many further prompts.

    `steps`: more visits more noise levels and takes longer. `every`: 2 keeps every second step, for half the memory.
    `batch`: trajectories computed at once.
    """

    trajectories: tuple[Trajectory, ...]
    steps: int = 25
    guidance: float = 3.0
    scheduler: Sampling = "ddim"
    every: int = 1
    batch: int = 8

    def __post_init__(self) -> None:
        if len({len(one.also) for one in self.trajectories}) != 1:
            raise BadOption("a bank needs at least one trajectory, all with equally many further prompts.")
        for name in ("steps", "every", "batch"):
            if getattr(self, name) < 1:
                raise BadOption(f"a bank's {name} is {getattr(self, name)}; expected 1 or more.")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every prompt that is asked, the empty one first, each once."""
        return tuple(dict.fromkeys(["", *(text for one in self.trajectories for text in (one.prompt, *one.also))]))

    @property
    def asked(self) -> int:
        """Predictions at each step of a trajectory."""
        return 2 + len(self.trajectories[0].also)


@dataclass(frozen=True)
class Drawn:
    """Training tuples and the trajectory that each came from.

    `inputs` [count, ...], `times` [count], `predictions` [2 + also, count, ...].
    """

    inputs: Tensor
    times: Tensor
    predictions: Tensor
    trajectories: tuple[Trajectory, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(one.prompt for one in self.trajectories)


@dataclass(frozen=True)
class Bank:
    """Sampled trajectories.

    `inputs` [trajectories, kept, ...] as the network saw them, `times` [trajectories, kept], `predictions`
    [trajectories, kept, 2 + also, ...] in the model's own space, `clean` [trajectories, ...] the finished latents.
    """

    plan: Plan
    inputs: Tensor
    times: Tensor
    predictions: Tensor
    clean: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Drawn:
        """Tuples drawn evenly from all trajectories and steps, with replacement."""
        rows, steps = (torch.randint(size, (count,), generator=generator) for size in self.times.shape)
        picked = tuple(self.plan.trajectories[row] for row in rows.tolist())
        predictions = self.predictions[rows, steps].transpose(0, 1)
        return Drawn(self.inputs[rows, steps], self.times[rows, steps], predictions, picked)

    def draw_clean(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Finished latents [count, ...] drawn evenly, with replacement, and the prompt of each."""
        rows = torch.randint(len(self.clean), (count,), generator=generator)
        return self.clean[rows], [self.plan.trajectories[row].prompt for row in rows.tolist()]


def identity(plan: Plan, denoiser: Denoiser, given: Mapping[str, Condition]) -> str:
    """A hash of all that a bank depends on: the whole network's weights, the prompts' conditions, the plan."""
    weights = [denoiser.digest(), denoiser.precision]
    schedule = {key: str(value) for key, value in sorted(denoiser.scheduler.config.items())}
    states = content_digest((text, given[text].states) for text in sorted(given))
    pooled = content_digest((text, one) for text in sorted(given) if (one := given[text].pooled) is not None)
    return content_hash([weights, states, pooled, denoiser.shape, asdict(plan), schedule])[:32]


def sample_bank(
    denoiser: Denoiser, plan: Plan, given: Mapping[str, Condition], *, work: RunContext | None = None
) -> Bank:
    """The bank of a plan, from `work.banks` as far as it is there; `given` holds every text's condition."""
    work = work or RunContext()
    folder = work.banks / f"bank-{identity(plan, denoiser, given)}" if work.banks else None
    total, parts = len(plan.trajectories), []
    work.report("bank", 0, total, unit="trajectories")
    for number, start in enumerate(range(0, total, plan.batch)):
        chunk = plan.trajectories[start : start + plan.batch]
        file = folder / f"{number:04d}.safetensors" if folder else None
        found = denoiser.machine.of_first(partial(_read, file))
        parts.append(found or _sampled(denoiser, chunk, plan=plan, given=given, file=file))
        work.report("bank", start + len(chunk), total, unit="trajectories")
    whole = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return Bank(plan, **whole)


def _read(file: Path | None) -> dict[str, Tensor] | None:
    """A batch of trajectories that lies there whole."""
    if file is None or not file.is_file():
        return None
    try:
        return load_file(file)
    except (SafetensorError, OSError):
        return None


def _sampled(
    denoiser: Denoiser,
    chunk: tuple[Trajectory, ...],
    *,
    plan: Plan,
    given: Mapping[str, Condition],
    file: Path | None,
) -> dict[str, Tensor]:
    with torch.no_grad():
        visited = list(_visit(denoiser, chunk, plan=plan, given=given))
    inputs, times, predictions, clean = zip(*visited, strict=True)
    part = {
        "inputs": torch.stack(inputs[:: plan.every], 1),
        "times": torch.stack(times[:: plan.every], 1),
        "predictions": torch.stack(predictions[:: plan.every], 1),
        "clean": clean[-1],
    }
    if file is not None:
        write_atomically(file, save(part))
    return part


def _visit(
    denoiser: Denoiser, chunk: tuple[Trajectory, ...], *, plan: Plan, given: Mapping[str, Condition]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """At each step: what the network saw, when, what it predicted [rows, asked, ...], and the latents after it."""
    scheduler = denoiser.sampler(plan.scheduler, plan.steps)
    latents = torch.stack([denoiser.noise(one.seed) for one in chunk])
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    # A batch in rows-first order: each trajectory's empty prompt, its prompt, its further ones.
    asked = Condition.stack([given[text] for one in chunk for text in ("", one.prompt, *one.also)])
    own_noise = _own_noise(scheduler, chunk)
    for time in scheduler.timesteps:
        inputs = scheduler.scale_model_input(latents, time) if hasattr(scheduler, "scale_model_input") else latents
        times = time.expand(len(chunk)).clone()
        repeated = inputs.repeat_interleave(plan.asked, 0), times.repeat_interleave(plan.asked, 0)
        flat = denoiser.predict(*repeated, asked)
        predictions = flat.reshape(len(chunk), plan.asked, *flat.shape[1:])
        empty, prompted = predictions[:, EMPTY], predictions[:, PROMPTED]
        guided = empty + plan.guidance * (prompted - empty)
        latents = scheduler.step(guided, time, latents, **own_noise).prev_sample
        yield inputs, times, predictions, latents


def _own_noise(scheduler: Any, chunk: tuple[Trajectory, ...]) -> dict[str, Any]:
    """The generators of a scheduler that draws noise of its own, one for each trajectory."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": [torch.Generator().manual_seed(one.seed) for one in chunk]}
