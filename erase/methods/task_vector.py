"""Task vector: the network is taught the concept, and what that changed is subtracted.

Paper: Pham et al., "Robust Concept Erasure Using Task Vectors", 2024, after Ilharco et al., "Editing Models with Task
Arithmetic", ICLR 2023: for weights W, and W_c after fine-tuning on images of the concept with the usual loss
|e_s(x_t, c) - e|^2,

    W' = W - scale (W_c - W)

The paper finds the scale by Diverse Inversion: soft tokens v_1 ... v_n that bring the concept about in W, each unlike
those before, and the smallest scale at which none of them does so in W'. With `strength: inversion`, v_i minimises

    E |e(z_t, T(p with v)) - eps|^2 + diversity mean_(j < i) cos(v, v_j)^2

on the concept's pictures z, and it brings the concept about in W' as long as it tells more of these than the empty
prompt does, the network's own zero-shot classification (Li et al., ICCV 2023):

    E |e'(z_t, empty) - eps|^2 - E |e'(z_t, T(p with v)) - eps|^2 > remains (the same of W).

Differences: the images are the finished latents of a bank of the concept's prompts, sampled by the model itself; the
paper looks for the concept in drawn images and searches which layers to edit, too; that no two v are alike is a
constraint there; the name itself is one of the v here. Without `strength: inversion` the scale is as given.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import Presets, presets
from erase.methods.training.bank import Bank
from erase.methods.training.layers import Layers
from erase.methods.training.pictures import Noised, picture_loss
from erase.methods.training.search import Conditions, Inverter, Learning
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained, draws
from erase.models import Condition, Model, check_reader
from erase.options import Count, NotNegative, Positive, Share
from erase.task import Task

_log = logging.getLogger(__name__)
LEVELS = 8  # of noise, for each picture by which a scale is found


@dataclass(frozen=True)
class TaskVector(Trained):
    """Options of the task vector, beside those of all training.

    `scale`: how many times what was learnt is subtracted. `strength`: `given` subtracts it so often, `inversion` looks
    for the smallest of `tries` even parts of it at which nothing brings the concept back: not its name, nor any of so
    many `inversions`, soft `tokens` learned in `inversion_steps` at `inversion_rate`; `diversity`: more keeps them
    further apart; `remains`: share of what they tell of the concept that may stay. `layers` as in ESD.
    """

    # Ours, for the paper fine-tunes a whole network and searches for its scale.
    presets: ClassVar[Presets] = presets(
        {"steps": 200, "learning_rate": 1e-5, "batch": 4, "scale": 1.0, "layers": "all"}
    )

    batch: int = 4
    scale: Positive = 1.0
    layers: Layers = "all"
    strength: Literal["given", "inversion"] = "given"
    tries: Count = 8
    inversions: Count = 4
    tokens: Count = 1
    inversion_steps: Count = 200
    inversion_rate: Positive = 1e-2
    diversity: NotNegative = 0.1
    remains: Share = 0.0

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        inverts = self.strength == "inversion"
        if inverts:
            check_reader(model, f"{self.name} with strength: inversion", instead="strength: given")
        session = Session.start(self, model, task, work=work)
        bank = session.bank(session.plan((text, ()) for text, _ in session.asked))
        parameters = session.chosen(self.layers)
        asked = self._inverted(session, bank) if inverts else {}
        before = {name: value.detach().clone() for name, value in parameters.items() if inverts}

        def loss(step: int, generator: torch.Generator) -> Tensor:
            clean, texts = bank.draw_clean(self.batch, generator)
            return picture_loss(session, clean, texts, generator=generator)

        session.train(parameters, loss)
        learnt = session.deltas(parameters)
        scale = self._found(session, bank, parameters, before=before, asked=asked) if inverts else self.scale
        return session.edit(deltas={name: subtracted(delta, scale) for name, delta in learnt.items()})

    def _inverted(self, session: Session, bank: Bank) -> Conditions:
        """Each of the bank's prompts with its own condition, and those with soft tokens that are unlike one another."""
        learning = Learning(self.tokens, self.inversion_steps, self.batch, self.inversion_rate)
        inverter = Inverter(session, bank, learning)
        found: dict[str, list[Tensor]] = {}
        for target in session.task.targets:
            known = found.setdefault(target.name, [])
            for number in range(self.inversions):
                generator, reader = draws(self.seed, -2 - number), inverter.reader
                start = reader.embeddings(torch.randint(reader.words, (self.tokens,), generator=generator))
                said = f"inversion {number + 1} of {self.inversions}: {target.name}"
                apart = partial(likeness, others=list(known), weight=self.diversity)
                known.append(inverter.learned(target, start, seed=self.seed + number, said=said, beside=apart))
        return inverter.conditions(found)

    @torch.no_grad()
    def _found(
        self,
        session: Session,
        bank: Bank,
        parameters: Mapping[str, Tensor],
        *,
        before: Mapping[str, Tensor],
        asked: Conditions,
    ) -> float:
        """The smallest scale at which nothing that is asked brings the concept back; the largest, told, if none is."""
        taught = {name: value.detach().clone() for name, value in parameters.items()}
        tried: list[tuple[float, list[float]]] = []
        for number in range(self.tries + 1):
            scale = self.scale * number / self.tries
            values = {name: old + subtracted(taught[name] - old, scale) for name, old in before.items()}
            with session.holding(parameters, values):
                tried.append((scale, told(session, bank, asked)))
            session.work.report("strength", number, self.tries, unit="tries", note=f"{max(tried[-1][1]):.3g} told")
            if number and all(
                now <= self.remains * max(was, 0.0) for now, was in zip(tried[-1][1], tried[0][1], strict=True)
            ):
                break
        else:
            _log.warning(
                f"task_vector: at scale {self.scale} something still brings the concept back, by its inversions; it is "
                "taken for want of a larger one: give a larger scale, or more steps."
            )
        record = {"scale": scale, "told": [{"scale": one, "gains": gains} for one, gains in tried]}
        session.info = replace(session.info, record=record)
        return scale


def subtracted(learnt: Tensor, scale: float) -> Tensor:
    """What a weight changes by when what it learnt is taken away `scale` times."""
    return -scale * learnt


def likeness(tokens: Tensor, *, others: Sequence[Tensor], weight: float) -> Tensor:
    """The weighted mean square of soft tokens' cosine to others, each [count, width] as one vector."""
    if not others:
        return tokens.sum() * 0
    cosines = [torch.cosine_similarity(tokens.flatten(), other.to(tokens).flatten(), dim=0) for other in others]
    return weight * torch.stack(cosines).square().mean()


@torch.no_grad()
def told(session: Session, bank: Bank, asked: Conditions) -> list[float]:
    """By how much the error on the concept's pictures is less under each condition than under the empty prompt.

    The mean over the bank's pictures, each at the same levels of noise, under its prompt's own conditions in turn.
    """
    generator = draws(session.options.seed, -100)
    gains: list[list[float]] = []
    for clean, one in zip(bank.clean, bank.plan.trajectories, strict=True):
        noised = Noised.of(session.denoiser, clean[None].repeat(LEVELS, 1, 1, 1), generator)
        errors = []
        for given in [session.given([""]).row(0), *asked[one.prompt]]:
            predicted = session.denoiser.predict(noised.inputs, noised.times, Condition.stack([given] * LEVELS))
            errors.append(float((predicted - noised.truth).square().mean()))
        gains.append([errors[0] - error for error in errors[1:]])
    return [sum(one) / len(one) for one in zip(*gains, strict=True)]
