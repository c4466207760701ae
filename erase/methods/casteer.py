"""CASteer, baked: what cross-attention writes into the picture loses the concept's direction, without any training.

Paper: "CASteer: Steering Diffusion Models for Controllable Generation", ICLR 2026. For pairs of prompts with and
without the concept, each layer's direction is the mean over pairs, steps and patches of what cross-attention gives

    s = normalise(mean y(with) - mean y(without)),

and while sampling y becomes y - beta max(<s, y>, 0) s. It acts on what attention writes and not on words, so that it
reaches prompts that never name the concept. Here this is one change of each layer that writes,

    W' = (I - scale S^T S) W,    b' = (I - scale S^T S) b + scale S^T S m

with the targets' directions as orthonormal rows of S, and for m the mean of y(without): what is written keeps the
component that it has without the concept, or with `value: zero`, as in the paper, none (m = 0). The paper's code has no
licence; this is written from its equation. Differences from it:
- a change of weights instead of a hook while sampling: rank one for each target and layer, a LoRA apart from the bias;
  it can be scaled, undone and shipped. A weight knows no step and no sign: one direction for all steps, and what points
  away from the concept is steered, too. The paper's norm is not restored either;
- pairs are the task's prompts with the target and with its anchor, over and over with other seeds, each with a
  trajectory of its own from the same noise; the paper has 50 pairs of a thing, up to 196 of people;
- several targets at once, as the directions that they span;
- networks with cross-attention alone: where text and image attend to each other the output is of both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from erase.changes import LowRank
from erase.context import RunContext
from erase.edit import Edit, describe
from erase.errors import BadModel, BadOption
from erase.methods.closed_form.phrasings import Phrasings
from erase.methods.closed_form.ridge import span
from erase.methods.training.bank import Bank, Plan, Trajectory, sample_bank
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.session import asked_pairs, spread, with_beyond
from erase.models import Condition, Model
from erase.options import Count, NotNegative, Options, Positive, Whole
from erase.sampling.guides import hooked
from erase.task import Task

WRITER = ".attn2.to_out.0"


@dataclass(frozen=True)
class CASteer(Options):
    """Options of CASteer.

    `value`: the component along the concept's direction becomes what it is without the concept (`anchor`) or none
    (`zero`). `scale`: 1 goes all the way there, more beyond it. `pairs`: of prompts, for each target; `steps`,
    `guidance`: of each one's sampling. `batch`: trajectories computed at once. `seed`: of the noise.
    `phrasings`: as in UCE.
    """

    # The paper's pairs and beta; the guidance is what its models are used with.
    paper: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"value": "zero", "scale": 2.0, "pairs": 50, "steps": 50, "guidance": 7.5, "phrasings": "own"}
    )

    value: Literal["anchor", "zero"] = "anchor"
    scale: Positive = 1.5
    pairs: Count = 16
    steps: Count = 10
    guidance: NotNegative = 3.0
    batch: Count = 8
    seed: Whole = 0
    phrasings: Phrasings = "shared"

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        info, work = describe(self, model, task), work or RunContext()
        each = [asked_pairs(model, replace(task, targets=(one,)), phrasings=self.phrasings) for one in task.targets]
        model.check_prompts([text for pairs in each for pair in pairs for text in pair])
        denoiser = Denoiser.of(model)
        writers = _writers(denoiser.network, model)
        written = [
            [self._written(model, denoiser, texts, work=work) for texts in zip(*one, strict=True)] for one in each
        ]
        low_rank, deltas = [], {}
        for name, layer in writers.items():
            key = f"{denoiser.component}.{name}"
            directions = directions_of(torch.stack([asked[name] - become[name] for asked, become in written]))
            mean = torch.stack([become[name] for _, become in written]).mean(0) if self.value == "anchor" else None
            down = (directions @ model.weight(f"{key}.weight").double()).float()
            low_rank.append(LowRank(-self.scale * directions.T.float(), down, f"{key}.weight"))
            if layer.bias is not None:
                bias = model.weight(f"{key}.bias").double()
                deltas[f"{key}.bias"] = steered_bias(bias, directions, mean, scale=self.scale).float()
        return with_beyond(Edit(info, low_rank=tuple(low_rank), deltas=deltas), model)

    def _written(
        self, model: Model, denoiser: Denoiser, texts: Sequence[str], *, work: RunContext
    ) -> Mapping[str, Tensor]:
        """What each layer writes under some prompts, the mean over their trajectories, steps and patches."""
        first = self.seed * 1_000_003
        chosen = tuple(Trajectory(text, first + number) for number, text in enumerate(spread(texts, self.pairs)))
        plan = Plan(chosen, self.steps, self.guidance, batch=self.batch)
        given = dict(zip(plan.texts, model.encode(plan.texts).conditions(), strict=True))
        bank = sample_bank(denoiser, plan, given, work=work)
        return means(denoiser, bank, given)


def _writers(network: nn.Module, model: Model) -> dict[str, nn.Linear]:
    """The layers that write what cross-attention gives; raises BadModel if there are none."""
    joint = hasattr(network, "context_embedder")
    found = {} if joint else {name: module for name, module in network.named_modules() if name.endswith(WRITER)}
    if not found:
        raise BadModel(f"{model.family} has no cross-attention; casteer steers what that writes: try distil or gem.")
    return found


@torch.no_grad()
def means(denoiser: Denoiser, bank: Bank, given: Mapping[str, Condition]) -> Mapping[str, Tensor]:
    """The mean of what each writing layer gives over a bank's latents under their own prompts, float64 [width]."""
    sums: dict[str, Tensor] = {}
    with _summing(denoiser.network, sums):
        for row, one in enumerate(bank.plan.trajectories):
            condition = Condition.stack([given[one.prompt]] * len(bank.times[row]))
            denoiser.predict(bank.inputs[row], bank.times[row], condition)
    count = bank.times.numel()
    return {name: value / count for name, value in sums.items()}


@contextlib.contextmanager
def _summing(network: nn.Module, sums: dict[str, Tensor]) -> Iterator[None]:
    """Adds to `sums` the mean over patches of what each writing layer gives, sample by sample."""

    def adding(name: str) -> Any:
        def add(module: Any, inputs: Any, output: Tensor) -> Tensor:
            sums[name] = sums.get(name, 0.0) + output.double().mean(1).sum(0).cpu()
            return output

        return add

    with hooked((module, adding(name)) for name, module in network.named_modules() if name.endswith(WRITER)):
        yield


def directions_of(shifts: Tensor) -> Tensor:
    """Orthonormal directions of the targets' shifts [targets, width], as rows; raises BadOption if nothing differs."""
    directions = span(shifts).T
    if not len(directions):
        raise BadOption("casteer: the targets and what they become are the same to the network; name other anchors.")
    return directions


def steered_bias(bias: Tensor, directions: Tensor, mean: Tensor | None, *, scale: float) -> Tensor:
    """What a bias changes by: its part along the directions goes, that of the mean comes in its place."""
    kept = bias if mean is None else bias - mean
    return -scale * directions.T @ (directions @ kept)
