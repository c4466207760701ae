"""SPM: membranes of rank one that erase under the concept's prompts and are held still everywhere else.

Paper: Lyu et al., "One-dimensional Adapter to Rule Them All", CVPR 2024, eq. 4 to 6:

    L = | e_s(x_t, c) - (e_0 - eta (e_p - e_0)) |^2  +  w mean_a | e_s(x_t, a) - e(x_t, a) |^2

for the concept's prompt c and random anchors a. As in the official code (Con6924/SPM, Apache-2.0), anchors are no
prompts but isotropic Gaussian states, 0.8 to 1.2 times as long as those of c; it redraws them until one is unlike c,
which in so many dimensions the first is. If `anchored`, e_0 is for the same prompt with the target's anchor, as the
official code's `neutral` where it is given. Differences from it:
- x_t, e_0 and e_p come from a bank that is sampled once, x_t again with the membranes on every `refresh` steps; it
  samples a trajectory for each step, with them on;
- each x_t is asked for at its own time, officially at one 33 to 42 of 1000 noisier; one size instead of some that vary;
- the learning rate is constant, without its warm-up of 500 steps and its three restarts, and by AdamW in float32
  instead of in 8 bits;
- one set of membranes for all targets with one gate, where there is one of each for each concept, trained by itself;
- while images are made here, each prompt sets the membranes' strength (`_gate` says how the official code's differs); a
  concept's synonyms are looked at beside its name. Applied or exported as weights the gate is fixed at 1, full strength
  for every prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit, Gate, LowRank
from erase.methods._presets import Presets, presets
from erase.methods.guidance.gate import GatedMembranes, Membranes
from erase.methods.training.adapters import Adapters
from erase.methods.training.bank import ALSO, EMPTY, PROMPTED, Drawn
from erase.methods.training.layers import Layers, chosen_modules
from erase.methods.training.refresh import Refresh
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Condition, Model
from erase.options import Count, NotNegative, Whole
from erase.sampling.guides import Guide
from erase.task import Task

_mse = torch.nn.functional.mse_loss


@dataclass(frozen=True)
class SPM(Trained):
    """Options of SPM, beside those of all training.

    `eta`: more steps further away from the concept. `anchored`: whether each prompt goes from its target's anchor
    instead of the empty prompt. `anchor_weight`: more holds all else tighter. `anchors`: random ones in a step.
    `layers`: of the transformer blocks, as in ESD. `gate`: whether each prompt sets the strength by its likeness to the
    concept while images are made. `refresh`: steps between two samplings of the bank with the membranes on, 0 for none.
    """

    # The official code's, for everything, without its warm-up and its restarts of the learning rate.
    presets: ClassVar[Presets] = presets(
        {"steps": 3000, "learning_rate": 1e-4, "batch": 1, "eta": 1.0, "anchor_weight": 1000.0, "anchors": 4}
        | {"layers": "all", "sampling_steps": 30, "sampling_guidance": 3.0}
    )

    steps: int = 3000
    learning_rate: float = 1e-4
    eta: NotNegative = 1.0
    anchored: bool = False
    anchor_weight: NotNegative = 1000.0
    anchors: Count = 4
    layers: Layers = "all"
    gate: bool = True
    refresh: Whole = 0

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        asked = ((text, (start,) if self.anchored else ()) for text, start in session.asked)
        bank = session.bank(session.plan(asked))
        modules = chosen_modules(session.denoiser.network, self.layers, blocks=True)
        adapters = Adapters.on(modules, rank=1, alpha=1.0, seed=self.seed, device=session.denoiser.machine.device)
        refresh = Refresh.of(session, bank, self.refresh, frozen=adapters.off)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            drawn = refresh.bank.draw(self.batch, generator)
            given = session.given(drawn.prompts)
            predicted = session.denoiser.predict(drawn.inputs, drawn.times, given)
            target = spm_target(drawn.predictions, eta=self.eta)
            held = self._held(session, adapters, drawn=drawn, around=random_anchors(given, self.anchors, generator))
            return spm_loss(predicted, target, *held, weight=self.anchor_weight)

        with adapters.attached():
            session.train(adapters.parameters, loss, state=refresh.state, after=refresh.after)
        low_rank = session.low_rank(adapters)
        if self.gate:
            gate = Gate("spm", tuple(word for target in task.targets for word in target.words))
            low_rank = tuple(replace(one, gate=gate) for one in low_rank)
        return session.edit(low_rank=low_rank)

    @staticmethod
    def gated(model: Model, gates: Mapping[Gate, Sequence[LowRank]]) -> Guide:
        """What adds each gate's membranes to a prompt's sampling as far as it is like one of that gate's words."""
        return GatedMembranes(model, tuple(Membranes(low_rank, gate.words) for gate, low_rank in gates.items()))

    def _held(self, session: Session, adapters: Adapters, *, drawn: Drawn, around: Condition) -> tuple[Tensor, Tensor]:
        """Predictions under the anchors with the membranes and without."""
        inputs, times = (part.repeat_interleave(self.anchors, 0) for part in (drawn.inputs, drawn.times))
        with torch.no_grad(), adapters.off():
            frozen = session.denoiser.predict(inputs, times, around)
        return session.denoiser.predict(inputs, times, around), frozen


def spm_target(frozen: Tensor, *, eta: float) -> Tensor:
    """What the membranes are to predict, from the frozen predictions [2 or 3, ...]: empty, concept, its anchor."""
    start = frozen[ALSO] if len(frozen) > ALSO else frozen[EMPTY]
    return start - eta * (frozen[PROMPTED] - start)


def spm_loss(predicted: Tensor, target: Tensor, *held: Tensor, weight: float) -> Tensor:
    """The erasing loss and the weighted holding one, of predictions under anchors now and before."""
    now, before = held
    return _mse(predicted, target) + weight * _mse(now, before)


def random_anchors(given: Condition, count: int, generator: torch.Generator) -> Condition:
    """Gaussian conditions, `count` for each prompt's, of 0.8 to 1.2 times its norm."""
    pooled = None if given.pooled is None else _alike(given.pooled, count, generator)
    return Condition(_alike(given.states, count, generator), pooled)


def _alike(states: Tensor, count: int, generator: torch.Generator) -> Tensor:
    repeated = states.repeat_interleave(count, 0)
    drawn = torch.randn(repeated.shape, generator=generator)
    share = 0.8 + 0.4 * torch.rand(len(drawn), generator=generator)
    norms = repeated.flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
    anchors: Tensor = drawn * (share * norms).view(-1, *[1] * (drawn.dim() - 1))
    return anchors
