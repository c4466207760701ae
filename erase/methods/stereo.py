"""STEREO: what brings the concept back is searched for first, then all of it is erased at once from the model itself.

Paper: Srivatsan et al., "STEREO: A Two-Stage Framework for Adversarially Robust Concept Erasing from Text-to-Image
Diffusion Models", CVPR 2025. The first stage takes turns: the network unlearns what is known of the concept, at first
its name c_0,

    L_i = | e_s(x_t, c_i) - e_0 |^2,

then soft tokens c_(i+1) are learned that bring the concept back in it, by textual inversion. The second stage begins at
the model's own weights. With all of them negated in one guidance, and the anchor a held by it,

    L = | e_s(x_t, c) - (e_0 + anchor_scale (e_a - e_0) - eta mean_j (e_(c_j) - e_0)) |^2

for c drawn from c_0 ... c_K. Official code: koushiksrivats/robust-concept-erasing (no licence). Differences from it:
- pictures and x_t come from a bank of the targets' prompts that is sampled once by the model itself; the code draws a
  folder of pictures beforehand, and samples an x_t for each step by the network that learns, under c;
- e_0, e_a and all e_(c_j) on the bank are asked of the model once, where the code asks them again at each step; in the
  first stage e_0 is the model's own, there that of the network before the round;
- its `compositional_guidance_scale` s makes the anchor's scale s - 1 and that of what is negated s + 1, so that its
  default of 2 is anchor_scale 1 and eta 3; its first stage has by default the aim that L_i has;
- a is the same prompt with the target's anchor, there one of a list of sentences made for the concept; without an
  anchor nothing is held;
- c stands in all of the task's prompts, there alone; soft tokens are learned in these, there in common sentences;
- several targets, each with soft tokens of its own, in one training; those of several encoders are learned at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import TrainingFailed
from erase.files import content_hash, write_atomically
from erase.methods._presets import SAMPLED, Presets, presets
from erase.methods.training.bank import ALSO, EMPTY, PROMPTED, Bank
from erase.methods.training.layers import Layers
from erase.methods.training.search import Conditions, Found, Inverter, Learning
from erase.methods.training.session import Session, one_of
from erase.methods.training.trainer import Trained, draws
from erase.models import Condition, Model, check_reader
from erase.options import Count, NotNegative, Positive
from erase.task import Task

_mse = torch.nn.functional.mse_loss
_BEGINS = {"style": "art", "object": "object", "identity": "person", "unsafe": "person"}  # what soft tokens start as


@dataclass(frozen=True)
class Stereo(Trained):
    """Options of STEREO, beside those of all training, which are the second stage's.

    `eta`: more steps further away from the concept; `anchor_scale`: more goes closer to the anchor. `rounds`: of the
    search, each of `search_steps` at `search_rate` and of an inversion of `inversion_steps` at `inversion_rate`, with
    `inversion_batch` pictures in a step; more find more that brings the concept back. `tokens`: soft ones in the place
    of a name. `layers` as in ESD, of both stages.
    """

    # The official code's; two rounds as in its command, four by default. `layers` for styles and faces as in ESD.
    presets: ClassVar[Presets] = presets(
        {**SAMPLED, "steps": 200, "learning_rate": 2e-5, "batch": 1, "eta": 3.0, "anchor_scale": 1.0, "rounds": 2}
        | {"search_steps": 200, "search_rate": 5e-6, "inversion_steps": 3000, "inversion_rate": 5e-3}
        | {"inversion_batch": 1, "tokens": 1, "layers": "x"},
        object={"layers": "u"},
        nsfw={"layers": "u"},
    )

    learning_rate: float = 2e-5
    eta: NotNegative = 1.0
    anchor_scale: NotNegative = 1.0
    rounds: Count = 2
    search_steps: Count = 100
    search_rate: Positive = 5e-6
    inversion_steps: Count = 500
    inversion_rate: Positive = 5e-3
    inversion_batch: Count = 4
    tokens: Count = 1
    layers: Layers = "x"

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        check_reader(model, self.name, instead="esd or sdd")
        session = Session.start(self, model, task, work=work)
        bank = session.bank(session.plan((text, (anchor,)) for text, anchor in session.asked))
        learning = Learning(self.tokens, self.inversion_steps, self.inversion_batch, self.inversion_rate)
        inverter = Inverter(session, bank, learning)
        parameters = session.chosen(self.layers)
        before = {name: value.detach().clone() for name, value in parameters.items()}
        with session.holding(parameters, before):
            found = self._kept(session, lambda: self._searched(inverter, parameters))
        conditions = inverter.conditions(found)
        aims = self._aims(session, bank, conditions)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            at = tuple(torch.randint(size, (self.batch,), generator=generator) for size in bank.times.shape)
            prompts = [bank.plan.trajectories[row].prompt for row in at[0].tolist()]
            given = Condition.stack([one_of(conditions[text], generator) for text in prompts])
            return _mse(session.denoiser.predict(bank.inputs[at], bank.times[at], given), aims[at])

        session.train(parameters, loss)
        return session.edit(deltas=session.deltas(parameters))

    def _searched(self, inverter: Inverter, parameters: Mapping[str, Tensor]) -> Found:
        """Each target's soft tokens, one for each round of unlearning; raises TrainingFailed if they are not finite."""
        session = inverter.session
        found: dict[str, list[Tensor]] = {target.name: [] for target in session.task.targets}
        for number in range(self.rounds):
            said = f"search {number + 1} of {self.rounds}"
            self._unlearn(inverter, parameters, inverter.conditions(found), number=number)
            for target in session.task.targets:
                start = inverter.start(_BEGINS[target.kind])
                tokens = inverter.learned(target, start, seed=self.seed + number, said=f"{said}: {target.name}")
                if not bool(torch.isfinite(tokens).all()):
                    raise TrainingFailed(
                        f"stereo's search has ended in soft tokens that are not finite; try a tenth of search_rate "
                        f"{self.search_rate}, or of inversion_rate {self.inversion_rate}."
                    )
                found[target.name].append(tokens.cpu())
        return found

    @torch.enable_grad()
    def _unlearn(
        self, inverter: Inverter, parameters: Mapping[str, Tensor], conditions: Conditions, *, number: int
    ) -> None:
        """Trains the parameters in place until what was found last, at first the prompts, asks for nothing."""
        session, bank, values = inverter.session, inverter.bank, list(parameters.values())
        adam = torch.optim.AdamW(values, lr=self.search_rate, weight_decay=self.weight_decay)
        generator = draws(self.seed, -2 - number)
        for step in range(self.search_steps):
            drawn = bank.draw(self.batch, generator)
            given = Condition.stack([conditions[text][-1] for text in drawn.prompts])
            loss = _mse(session.denoiser.predict(drawn.inputs, drawn.times, given), drawn.predictions[EMPTY])
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            session.denoiser.machine.sum_gradients(values)
            adam.step()
            said = f"search {number + 1} of {self.rounds}: unlearning"
            session.work.report(
                said, step + 1, self.search_steps, unit="steps", note=f"loss {float(loss.detach()):.3g}"
            )
        adam.zero_grad()

    def _kept(self, session: Session, search: Callable[[], Found]) -> Found:
        """What the search finds, from where an interrupted run of this very training left it, or left there."""
        file = session.work.folder / "search-checkpoint.safetensors" if session.work.folder else None
        info, names = session.info, session.task.names
        identity = content_hash([info.base, info.method, info.options, info.task])
        if file is not None and file.is_file():
            with contextlib.suppress(SafetensorError, OSError), safe_open(file, framework="pt") as content:
                if (content.metadata() or {}).get("erase.search") == identity:
                    return {name: list(content.get_tensor(str(number)).unbind()) for number, name in enumerate(names)}
        found = search()
        if file is not None:
            tensors = {str(number): torch.stack(list(found[name])) for number, name in enumerate(names)}
            write_atomically(file, save(tensors, metadata={"erase.search": identity}))
        return found

    @torch.no_grad()
    def _aims(self, session: Session, bank: Bank, conditions: Conditions) -> Tensor:
        """What the network is to predict on the whole bank, [trajectories, kept, ...]; asks the model itself."""
        aims = []
        for row, one in enumerate(bank.plan.trajectories):
            inputs, times, known = bank.inputs[row], bank.times[row], bank.predictions[row].transpose(0, 1)
            negated = [known[PROMPTED]]
            for given in conditions[one.prompt][1:]:
                whole = Condition.stack([given] * len(inputs))
                negated.append(session.denoiser.predict(inputs, times, whole))
            aims.append(self.aim(known[EMPTY], torch.stack(negated), anchor=known[ALSO]))
            session.work.report("what is negated", row + 1, len(bank.plan.trajectories), unit="trajectories")
        return torch.stack(aims)

    def aim(self, empty: Tensor, negated: Tensor, *, anchor: Tensor) -> Tensor:
        """The guidance that is learnt: held by the anchor, away from the mean of what is negated, [count, ...]."""
        return empty + self.anchor_scale * (anchor - empty) - self.eta * (negated.mean(0) - empty)
