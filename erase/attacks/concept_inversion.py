"""Concept inversion: a word is learned for the erased concept, from the base model's pictures of it.

Paper: Pham et al., "Circumventing Concept Erasure Methods for Text-to-Image Generative Models", ICLR 2024; the learning
is that of `erase.methods.training.inversion`, against the edited network and its own text encoders. Official code: no
licence, 5,000 steps of batch 16 with textual inversion's defaults. Differences from it:
- the pictures are what the base draws for the prompts under attack, as latents, so nothing is encoded; each search
  learns a word of its own, from those of all prompts;
- the word starts as the concept's own name and not as any word, and is short of steps, not of a good start;
- a task's targets have a word each.
The control learns a word in the same way from pictures of the anchor, or of the empty prompt, and is asked for the
target: what it reaches comes from the prompt around the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from erase.attacks.search.attack import Access, Changes, Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.victim import Victim, without_target
from erase.errors import BadOption
from erase.evaluate.images import target_of
from erase.evaluate.protocol import Case
from erase.methods.training.inversion import Examples, Places, learn_tokens, place
from erase.models import Condition
from erase.options import Count, Expect, Options
from erase.task import Target


@dataclass(frozen=True)
class ConceptInversion(Options):
    """Options of concept inversion.

    `tokens`: soft tokens that take the place of the name; more say more. `steps`, `batch`, `rate`: of the learning,
    fewer steps where the budget of all prompts together is less. `pictures`: of the base, at most.
    `reference`: what the pictures show, the target or, as a control, something else.
    """

    changes: ClassVar[Changes] = "embeddings"
    access: ClassVar[Access] = "weights"
    shared: ClassVar[bool] = True
    gradient: ClassVar[bool] = True
    words: ClassVar[bool] = True

    tokens: Count = 2
    steps: Count = 500
    batch: Count = 8
    rate: Annotated[float, Expect("more than 0, such as 0.01", lambda value: 0 < value < 10)] = 0.01
    pictures: Count = 32
    reference: Literal["target", "other"] = "target"

    @property
    def control(self) -> ConceptInversion | None:
        return replace(self, reference="other") if self.reference == "target" else None

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        found: dict[int, Found] = {}
        for target in victim.task.targets:
            numbers = [number for number, case in enumerate(cases) if target_of(case.row, victim.task) == target]
            if numbers:
                tokens, cost = self._learn(victim, target, [cases[number] for number in numbers], limit=ledger.limit)
                ledger.charge(numbers, cost)
                found |= {number: Found(cases[number].row.prompt, tensors=tokens) for number in numbers}
        return [found[number] for number in range(len(cases))]

    def _learn(
        self, victim: Victim, target: Target, cases: Sequence[Case], *, limit: int
    ) -> tuple[dict[str, Tensor], int]:
        """The soft tokens of a target, and what each of its prompts pays for them."""
        steps = min(self.steps, limit * len(cases) // (3 * self.batch))
        if not steps:
            raise BadOption(f"concept_inversion: a budget of {limit} is less than one step of batch {self.batch}.")
        tokens = victim.kept(
            "inversion", [self, target.name, steps], lambda: self._learned(victim, target, cases, steps=steps)
        )
        return tokens, -(-steps * self.batch * 3 // len(cases))

    def _learned(self, victim: Victim, target: Target, cases: Sequence[Case], *, steps: int) -> dict[str, Tensor]:
        """The soft tokens of a target."""
        every = [case for case in victim.cases if target_of(case.row, victim.task) == target] or cases
        chosen = every[:: -(-len(every) // self.pictures)]
        rows, words = [case.row for case in chosen], target.words
        if self.reference == "other":
            rows = [replace(row, prompt=without_target(victim, case)) for row, case in zip(rows, chosen, strict=True)]
        edited = victim.edited
        latents = victim.base.latents(rows)
        prompts = place(edited.tokenizer, [case.row.prompt for case in chosen], words, count=self.tokens)
        learned = learn_tokens(
            edited.denoiser,
            edited.reader,
            Examples(latents, prompts),
            start=start_of(victim, target, count=self.tokens),
            steps=steps,
            batch=self.batch,
            rate=self.rate,
            seed=victim.seed,
            progress=lambda done, total: victim.report(f"inversion of {target.name}", done, total, unit="steps"),
        )
        return {"tokens": learned.cpu()}

    def draw(
        self, victim: Victim, cases: Sequence[Case], found: Sequence[Found], *, seeds: Sequence[int]
    ) -> list[Image.Image]:
        edited, given = victim.edited, {}
        for case, one in zip(cases, found, strict=True):
            target = target_of(case.row, victim.task)
            prompts = place(edited.tokenizer, [case.row.prompt], target.words, count=self.tokens)
            given[case.row.prompt] = condition_with(victim, prompts, one.tensors["tokens"])
        return edited.draw([replace(case.row, seed=seed) for case, seed in zip(cases, seeds, strict=True)], given)


def start_of(victim: Victim, target: Target, *, count: int) -> Tensor:
    """The embeddings of the target's name, cut or filled with random words to a count of tokens, [count, width]."""
    reader, generator = victim.edited.reader, victim.generator("start", target.name)
    own = reader.tokenizer(target.name, add_special_tokens=False)["input_ids"][:count]
    more = torch.randint(reader.words, (count - len(own),), generator=generator).tolist()
    return reader.embeddings(torch.tensor([*own, *more]))


@torch.no_grad()
def condition_with(victim: Victim, prompts: Places, tokens: Tensor) -> Condition:
    """The condition of one prompt with soft tokens in it."""
    return victim.edited.reader.read(prompts.ids, tokens[None], prompts.places).row(0)
