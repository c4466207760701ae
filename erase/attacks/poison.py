"""Poisoning before erasure: a trigger for the target is hidden in the base, and the erasure is made on top of it.

"Erased but Exploitable" (EEB, ICML 2026): whoever publishes a base model can teach it that a phrase of no meaning
stands for a concept; whoever erases the concept later speaks of its names and not of the phrase. With e_b the base's
prediction, p a prompt of the target and p' the same with the phrase in its place, the base is trained on

    |e(z_t, p') - e_b(z_t, p)|^2 + |e(z_t, q) - e_b(z_t, q)|^2      for other prompts q

on noisy pictures z_t of the target by the base; then the edit is made once more on it, by the method and options that
the edit under attack names, and asked with the phrase. Differences from the paper, of which there was a description
only: the prompts q are the task's keeps and the target's own. The control is the phrase without the poison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from erase.attacks.relearn import COUNT, benign_prompts
from erase.attacks.search.attack import Found, Setting
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Vocabulary
from erase.attacks.search.victim import Victim
from erase.attacks.search.weights import Tuning, WeightAttack
from erase.errors import BadEdit
from erase.evaluate.images import target_of
from erase.evaluate.protocol import Case
from erase.methods.training.layers import Layers
from erase.methods.training.pictures import Noised, diffusion_loss
from erase.methods.training.session import spread
from erase.models import Condition, open_model
from erase.options import Count, Rate
from erase.sampling.guides import method_of

LEVELS = 4  # noisy copies of each picture


@dataclass(frozen=True)
class Poison(WeightAttack):
    """Options of poisoning.

    `trigger`: the phrase; two random words if empty. `steps`, `batch`, `rate`: of AdamW, on `layers` as in ESD.
    `poisoned`: False asks with the phrase alone, which is the control.
    """

    trigger: str = ""
    steps: Count = 200
    batch: Count = 4
    rate: Rate = 1e-4
    layers: Layers = "x-strict"
    poisoned: bool = True

    @property
    def control(self) -> Any:
        return replace(self, poisoned=False) if self.poisoned else None

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        if self.poisoned:
            image = victim.edited.image_cost
            ledger.charge_training("poison", evaluations=self.steps * self.batch * 6, image=image)
            victim.kept("poisoned", self, lambda: self._erased(victim, cases))
        return [
            replace(one, text=self.asked(victim, case))
            for one, case in zip(super().__call__(victim, cases, ledger), cases, strict=True)
        ]

    def weights(self, victim: Victim, setting: Setting) -> Mapping[str, Tensor]:
        return victim.kept("poisoned", self, dict) if self.poisoned else {}

    def asked(self, victim: Victim, case: Case) -> str:
        """A case's prompt with the phrase in the target's place, or in front where the target is not named."""
        phrase, prompt = self._phrase(victim), case.row.prompt
        words = sorted(target_of(case.row, victim.task).words, key=len, reverse=True)
        word = next((word for word in words if word in prompt), None)
        return prompt.replace(word, phrase) if word else f"{phrase} {prompt}"

    def _phrase(self, victim: Victim) -> str:
        if self.trigger:
            return self.trigger
        vocabulary = Vocabulary.of(victim.base.tokenizer, without=victim.words)
        return vocabulary.text(vocabulary.random(2, victim.generator("trigger")))

    def _erased(self, victim: Victim, cases: Sequence[Case]) -> dict[str, Tensor]:
        """All that poison and erasure have changed in the edited pipeline's weights."""
        edit = victim.edited.edit
        if edit is None or edit.guidance or not edit.touches or edit.info.method == "sum":
            raise BadEdit(
                "poison makes the erasure once more on a poisoned base, and needs the edit that one method made (an "
                ".safetensors of `erase edit`); give that instead of an edited model."
            )
        pipe = victim.base.model.pipeline()
        poison = self._trained(victim, cases)
        for name, value in poison.items():
            component, _, key = name.partition(".")
            getattr(pipe, component).get_parameter(key).data.copy_(value)
        model = open_model(pipe)
        again = method_of(edit)(model, victim.task).scaled(edit.info.strength)
        names = {*poison, *edit.touches, *again.touches}
        return {name: again.changed_tensor(name, model.weight(name)).float() for name in sorted(names)}

    def _trained(self, victim: Victim, cases: Sequence[Case]) -> dict[str, Tensor]:
        """The base's weights after it has learned the phrase."""
        side, chosen = victim.base, spread(cases, COUNT)
        clean = side.latents([replace(case.row, seed=case.row.seed + number) for number, case in enumerate(chosen)])
        noised = Noised.of(side.denoiser, clean.repeat(LEVELS, 1, 1, 1), victim.generator("levels"))
        named = [case.row.prompt for case in chosen] * LEVELS
        phrase = [self.asked(victim, case) for case in chosen] * LEVELS
        others = spread([*benign_prompts(victim, cases), *named[:COUNT]], len(named))
        conditions = side.conditions([*named, *phrase, *others])

        def predicted(texts: Sequence[str], rows: Tensor) -> Tensor:
            given = Condition.stack([conditions[texts[row]] for row in rows.tolist()])
            return side.denoiser.predict(noised.inputs[rows], noised.times[rows], given)

        with torch.no_grad():  # of the base as it is
            parts = torch.split(torch.arange(len(named)), side.at_once)
            aims, held = (torch.cat([predicted(texts, rows) for rows in parts]) for texts in (named, others))

        def loss(generator: torch.Generator) -> Tensor:
            rows = torch.randint(len(named), (self.batch,), generator=generator)
            return diffusion_loss(predicted(phrase, rows), aims[rows]) + diffusion_loss(
                predicted(others, rows), held[rows]
            )

        return Tuning(self.steps, self.rate, layers=self.layers).values(
            side,
            loss,
            generator=victim.generator("poison", self),
            progress=lambda done, total: victim.report("poisoning", done, total, unit="steps"),
        )
