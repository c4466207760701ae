"""A bank whose latents are sampled again while its network learns, for methods that learn on what the network draws."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from erase.methods.training.bank import Bank, Trajectory
from erase.methods.training.session import Session
from erase.models import Condition

Held = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Refresh:
    """Resamples a bank's latents every `interval` steps, in place; never if it is 0.

    `student` makes the network the one that samples, `frozen` the one whose predictions are learnt from; None if they
    are not used.
    """

    session: Session
    bank: Bank
    interval: int
    student: Held = nullcontext
    frozen: Held | None = None

    @staticmethod
    def of(
        session: Session, bank: Bank, interval: int, *, student: Held = nullcontext, frozen: Held | None = None
    ) -> Refresh:
        """The refreshing of a bank's copy."""
        if interval:
            bank = replace(bank, inputs=bank.inputs.clone(), predictions=bank.predictions.clone())
        return Refresh(session, bank, interval, student, frozen)

    @property
    def state(self) -> dict[str, Tensor]:
        """What changes: a checkpoint keeps it."""
        if not self.interval:
            return {}
        held = {} if self.frozen is None else {"predictions": self.bank.predictions}
        return {"inputs": self.bank.inputs} | held

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Resamples, if it is time."""
        if not self.interval or (step + 1) % self.interval or step + 1 >= self.session.options.steps:
            return
        plan = self.bank.plan
        asked = tuple(replace(one, also=()) for one in plan.trajectories)
        with self.student():
            self.bank.inputs.copy_(self.session.bank(replace(plan, trajectories=asked), kept=False).inputs)
        if self.frozen is not None:
            with self.frozen():
                for row, trajectory in enumerate(plan.trajectories):
                    self.bank.predictions[row].copy_(self._asked(row, trajectory))

    def _asked(self, row: int, trajectory: Trajectory) -> Tensor:
        """The predictions at a trajectory's kept steps, [kept, asked, ...]."""
        texts, inputs = ["", trajectory.prompt, *trajectory.also], self.bank.inputs[row]
        given = self.session.given(texts)
        repeated = [Condition(*parts) for parts in _rows(given, len(inputs))]
        flat = self.session.denoiser.predict(
            inputs.repeat_interleave(len(texts), 0),
            self.bank.times[row].repeat_interleave(len(texts)),
            Condition.stack(repeated),
        )
        return flat.reshape(len(inputs), len(texts), *flat.shape[1:])


def _rows(given: Condition, count: int) -> list[tuple[Tensor, Tensor | None]]:
    """Each text's condition, all texts over and over `count` times."""
    pooled = [None] * len(given.states) if given.pooled is None else list(given.pooled)
    return list(zip(given.states, pooled, strict=True)) * count
