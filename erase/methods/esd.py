"""Erased Stable Diffusion: the network learns to step away from the concept, by its own frozen predictions.

Paper: Gandikota et al., "Erasing Concepts from Diffusion Models", ICCV 2023, eq. 7:

    L = | e_s(x_t, c) - (e_0 - eta (e_p - e_0)) |^2

where e_s is the trained network, e_p and e_0 are the frozen one's predictions for the concept's prompt c and for the
empty one, and x_t lies on a trajectory that was sampled with guidance and c. With `erase_from`, an attribute is taken
out of a wider concept f, with which x_t is then sampled: L = | e_s(x_t, f) - (e_f - eta (e_p - e_0)) |^2.
Official code: rohitgandikota/erasing (MIT). Differences from it:
- x_t, e_0, e_p and e_f come from a bank that is sampled once (`_bank`), where the official code samples a trajectory up
  to one step for each iteration, keeps only its end, and asks a second, frozen network there. Today's code samples by
  the frozen network, the first one by the network that learns: so does `refresh`, every so many steps;
- today's official `negative_guidance` n adds to e_p instead of e_0, so n is our eta + 1; the first code's is our eta;
- each x_t is asked for at its own time, as in today's code; the first one draws a time within the sampler's interval;
- several targets, each with all its prompts and synonyms, in one training;
- the network is trained in float32, whatever precision its file has, and at its own size; today's code trains in
  bfloat16 and samples at 1024 pixels, by the pipeline's own scheduler instead of DDIM;
- keeps are not used, nor anchors unless asked for: if `anchored`, L = | e_s(x_t, c) - (e_a - eta (e_p - e_0)) |^2,
  where a is the same prompt with the target's anchor, as LECO's neutral.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import BadOption
from erase.methods._presets import SAMPLED, Presets, presets
from erase.methods.training.bank import ALSO, EMPTY, PROMPTED
from erase.methods.training.layers import Layers
from erase.methods.training.refresh import Refresh
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Model
from erase.options import NotNegative, Whole
from erase.task import Task


@dataclass(frozen=True)
class ESD(Trained):
    """Options of ESD, beside those of all training.

    `eta`: the paper's; more steps further away from the concept, 0 goes to the empty prompt.
    `layers`: `x` cross-attention (styles, faces), `x-strict` its keys and values alone, `text` these and whatever reads
    the prompt before them, its pooled state included, `qk` queries and keys where prompt and picture meet, `u` all but
    cross-attention (objects, nudity), `selfattn`, `all`.
    `erase_from`: the wider concept that the targets are taken out of; empty for none. `anchored`: whether each prompt
    goes from its target's anchor instead of the empty prompt. `refresh`: steps between two samplings of the bank by the
    network that learns, 0 for none.
    """

    # The first official code's, whose released styles are of cross-attention. That what a prompt need not name
    # (objects, nudity) goes from outside it is the paper's advice as we remember it; its faces are not known to us.
    presets: ClassVar[Presets] = presets(
        {**SAMPLED, "steps": 1000, "learning_rate": 1e-5, "batch": 1, "eta": 1.0, "layers": "x"},
        object={"layers": "u"},
        nsfw={"layers": "u"},
    )

    learning_rate: float = 5e-5
    sampling_steps: int = 50
    eta: NotNegative = 1.0
    layers: Layers = "x"
    erase_from: str = ""
    anchored: bool = False
    refresh: Whole = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.erase_from and self.anchored:
            raise BadOption(
                f'esd: erase_from is "{self.erase_from}" and anchored is true; both say where the targets go from: '
                "give one of them."
            )

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        bank = session.bank(session.plan(self._asked(session.asked)))
        parameters = session.chosen(self.layers)
        before = {name: value.detach().clone() for name, value in parameters.items() if self.refresh}
        refresh = Refresh.of(session, bank, self.refresh, frozen=lambda: session.holding(parameters, before))

        def loss(step: int, generator: torch.Generator) -> Tensor:
            drawn = refresh.bank.draw(self.batch, generator)
            predicted = session.denoiser.predict(drawn.inputs, drawn.times, session.given(drawn.prompts))
            return esd_loss(predicted, self._ordered(drawn.predictions), eta=self.eta)

        session.train(parameters, loss, state=refresh.state, after=refresh.after)
        return session.edit(deltas=session.deltas(parameters))

    def _asked(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
        """Each prompt that is learnt under, and what is asked beside it.

        That is the anchor's prompt, where it is wanted and not empty for all; or the target's, where it is taken out of
        a wider concept.
        """
        if self.erase_from:
            return [(self.erase_from, (text,)) for text, _ in pairs]
        has_anchor = self.anchored and any(anchor for _, anchor in pairs)
        return [(text, (anchor,) if has_anchor else ()) for text, anchor in pairs]

    def _ordered(self, predictions: Tensor) -> Tensor:
        """The frozen predictions with the target's second, as `esd_target` wants them."""
        return predictions[[EMPTY, ALSO, PROMPTED]] if self.erase_from else predictions


def esd_target(frozen: Tensor, *, eta: float) -> Tensor:
    """What the network is to predict, from the frozen predictions [2 or 3, ...]: empty, concept, what it goes from."""
    start = frozen[ALSO] if len(frozen) > ALSO else frozen[EMPTY]
    return start - eta * (frozen[PROMPTED] - frozen[EMPTY])


def esd_loss(predicted: Tensor, frozen: Tensor, *, eta: float) -> Tensor:
    """Mean squared distance of a prediction to its target."""
    return torch.nn.functional.mse_loss(predicted, esd_target(frozen, eta=eta))
