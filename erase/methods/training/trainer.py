"""The training that all trained methods share: its options, its loop, its checkpoints.

What a step draws depends on the seed and the step's number alone, so a training that is resumed from a checkpoint ends
in the same weights as one that was never stopped.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from erase import registry
from erase.context import RunContext
from erase.errors import TrainingFailed
from erase.files import content_hash, write_atomically
from erase.methods.closed_form.phrasings import Phrasings
from erase.methods.training.denoiser import Precision
from erase.methods.training.distributed import Machine
from erase.methods.training.loss_curve import curve
from erase.options import Count, NotNegative, Options, Rate, Whole

Loss = Callable[[int, torch.Generator], Tensor]
_log = logging.getLogger(__name__)
_IDENTITY = "erase.training"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Optimised(Options):
    """Options of everything that is trained.

    `steps`, `learning_rate`: more erases further and harms more. `batch`: tuples in a step. `weight_decay` pulls what
    is trained to zero. `gradient_clip`: largest norm of a step's gradient, 0 for any. `seed`: of all that is drawn.
    `phrasings`: `own` asks for targets in the task's prompts alone, `shared` also in those that closed forms are told.
    """

    steps: Count = 200
    learning_rate: Rate = 1e-5
    batch: Count = 1
    weight_decay: NotNegative = 0.0
    gradient_clip: NotNegative = 0.0
    seed: Whole = 0
    phrasings: Phrasings = "own"

    @property
    def name(self) -> str:
        """The method's name in a pipeline."""
        return registry.name_of(self)


@dataclass(frozen=True)
class Trained(Optimised):
    """Options of every method that learns the network's predictions from a bank, beside those of all training.

    `trajectories`: of the bank, for each target; `sampling_steps`: of each of them; `sampling_guidance`: with which
    they are sampled; `sampling_batch`: how many at once; `every`: 2 keeps every second of their steps. `size`: of the
    pictures in pixels, 0 for the model's own. `max_sequence_length`: tokens that T5 is given, 0 for the pipeline's
    number; fewer are faster.
    `precision`: bfloat16 halves what frozen weights take and is faster on a card; what is trained stays in float32.
    `gradient_checkpointing` takes less memory and more time; with `offload` frozen weights wait on the CPU, too, and
    come to the card layer by layer.
    """

    trajectories: Count = 8
    sampling_steps: Count = 25
    sampling_guidance: float = 3.0
    sampling_batch: Count = 8
    every: Count = 1
    size: Whole = 0
    max_sequence_length: Whole = 0
    precision: Precision = "float32"
    gradient_checkpointing: bool = False
    offload: bool = False


@dataclass
class Trainer:
    """Trains `parameters` in place by AdamW.

    `state` holds further tensors that change while training, such as a moving average: a checkpoint keeps them too.
    `identity` says what is trained on what; another training's checkpoint is not taken up.
    """

    options: Optimised
    parameters: Mapping[str, Tensor]
    identity: str
    work: RunContext
    state: Mapping[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    machine: Machine = field(default_factory=Machine.here)

    def __post_init__(self) -> None:
        rate, decay = self.options.learning_rate, self.options.weight_decay
        # Fused: one call for all tensors instead of several for each, which on small networks takes longer than a step.
        values = list(self.parameters.values())
        self._optimizer = torch.optim.AdamW(values, lr=rate, weight_decay=decay, fused=True)
        self._saved = time.monotonic()

    def run(self, loss: Loss, *, after: Callable[[int], None] | None = None) -> tuple[float, ...]:
        """Every step's loss; `after` is called with each step's number.

        Raises TrainingFailed if a loss is not finite, or if no weight has changed in the end.
        """
        self._restore()
        total = self.options.steps
        for step in range(len(self.losses), total):
            self.losses.append(self._step(step, loss))
            if after is not None:
                after(step)
            self.work.report("training", step + 1, total, unit="steps", note=f"loss {self.losses[-1]:.3g}")
            self._save_sometimes()
        self._write_losses()
        return tuple(self.losses)

    @torch.enable_grad()
    def _step(self, step: int, loss: Loss) -> float:
        value = loss(step, draws(self.options.seed, step))
        if not math.isfinite(float(value.detach())):
            self._write_losses()
            raise TrainingFailed(
                f"the loss of {self.options.name} is {float(value.detach())} at step {step + 1} of "
                f"{self.options.steps} with learning_rate {self.options.learning_rate}; try a tenth of it."
            )
        self._optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        self.machine.sum_gradients(self.parameters.values())
        if self.options.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.options.gradient_clip)
        self._optimizer.step()
        return float(value.detach())

    def _save_sometimes(self) -> None:
        file = self.work.checkpoint
        if file is None or time.monotonic() - self._saved < self.work.seconds:
            return
        tensors = {f"weight.{name}": value.detach() for name, value in self.parameters.items()}
        tensors |= {f"state.{name}": value.detach() for name, value in self.state.items()}
        for name, value in self.parameters.items():
            moments = self._optimizer.state[value]
            tensors |= {f"{moment}.{name}": moments[moment] for moment in _MOMENTS if moments}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        whole = {key: value.contiguous() for key, value in tensors.items()}
        write_atomically(file, save(whole, metadata={_IDENTITY: self.identity}))
        self._saved = time.monotonic()

    def _restore(self) -> None:
        tensors = self.machine.of_first(self._checkpoint)
        if not tensors:
            return
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(tensors[f"weight.{name}"])
                if f"step.{name}" in tensors:
                    self._optimizer.state[value] = {
                        moment: tensors[f"{moment}.{name}"].to(value.device) for moment in _MOMENTS
                    }
            for name, value in self.state.items():
                value.copy_(tensors[f"state.{name}"])
        self.losses[:] = tensors["losses"].tolist()
        _log.info("%s goes on after step %d", self.options.name, len(self.losses))

    def _checkpoint(self) -> dict[str, Tensor]:
        """What an earlier process left of this very training; empty if nothing that can be read."""
        file = self.work.checkpoint
        if file is None or not file.is_file():
            return {}
        try:
            with safe_open(file, framework="pt") as content:
                if (content.metadata() or {}).get(_IDENTITY) != self.identity:
                    return {}
                return {key: content.get_tensor(key) for key in list(content.keys())}
        except (SafetensorError, OSError):
            return {}

    def _write_losses(self) -> None:
        if self.work.folder is not None:
            write_atomically(self.work.folder / "losses.json", json.dumps(self.losses) + "\n")
            write_atomically(self.work.folder / "loss.png", curve(self.losses))


def draws(seed: int, step: int) -> torch.Generator:
    """The generator of a step: the same in a training that is resumed."""
    # torch's CPU generator takes 32 bits of a seed, so seed and step are mixed into these.
    return torch.Generator().manual_seed(int(content_hash([seed, step])[:8], 16))
