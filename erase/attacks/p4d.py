"""P4D: a prompt that makes the edited network denoise as the base does for the target's own prompt.

Paper: Chin et al., "Prompting4Debugging: Red-Teaming Text-to-Image Diffusion Models by Finding Problematic Prompts",
ICML 2024. Soft words d are followed by their nearest words N(d) of the vocabulary, and the gradient at those moves d:

    d <- d - r g,    g the gradient at N(d) of  |e_edited(z_t, t, T(N(d))) - e_base(z_t, t, T(p))|^2

`n` looks for a prompt of free words alone, `k` puts one after every few words of the plain prompt.
Official code: joycenerd/P4D (MIT): AdamW at 0.1, 3,000 steps of one time each, an image every 50. Differences from it:
- a prompt's z_t stay the same, so that the base is asked once, and are held against the direction from what the target
  becomes to it (`aim`); `base` is the official loss;
- an image is drawn every few steps and judged, and the search of a prompt ends with its first success;
- words are whole words that are read again as they were written, and in `n` none names the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from erase.attacks.search.attack import Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, Vocabulary, listed, try_out
from erase.attacks.search.flips import Problem
from erase.attacks.search.objective import Aim, objective_of
from erase.attacks.search.text import TextAttack
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.methods.training.inversion import Places, place
from erase.options import Count, Expect


@dataclass(frozen=True)
class P4D(TextAttack):
    """Options of P4D.

    `form`: n, free words alone, or k, one after every `spacing` words of the prompt. `tokens`: free words of `n`.
    `levels`: noisy latents that the loss is taken over. `steps`: between two images. `rate`: of the steps.
    `aim`: what the edited network is held against: direction, or base as officially.
    """

    gradient: ClassVar[bool] = True
    words: ClassVar[bool] = True

    form: Literal["n", "k"] = "k"
    tokens: Count = 8
    spacing: Count = 3
    levels: Count = 2
    steps: Count = 10
    rate: Annotated[float, Expect("more than 0, such as 0.1", lambda value: 0 < value < 10)] = 0.1
    aim: Aim = "direction"

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        side = victim.edited
        vocabulary = Vocabulary.of(side.tokenizer, without=victim.words if self.form == "n" else ())
        objective = objective_of(victim, cases, levels=self.levels, what=self.aim)
        ledger.charge(range(len(cases)), objective.cost)
        frames = [self._frame(case.row.prompt) for case in cases]
        generator = victim.generator("p4d", [case.row.prompt for case in cases])
        best: dict[int, Found] = {}
        # Prompts with equally many free words are searched together.
        for count in sorted({frame.count(None) for frame in frames}):
            numbers = [number for number, frame in enumerate(frames) if frame.count(None) == count]
            prompts = _placed(side.tokenizer, [frames[number] for number in numbers])
            problem = Problem(side.reader, vocabulary, prompts, objective, torch.tensor(numbers))
            own = _Search(self, victim, cases, ledger, problem, frames, generator)
            best |= own.run(numbers, count)
        return [best.get(number, Found(case.row.prompt)) for number, case in enumerate(cases)]

    def _frame(self, prompt: str) -> list[str | None]:
        """The prompt's words with None where a free one stands."""
        if self.form == "n":
            return [None] * self.tokens
        frame: list[str | None] = []
        for place_, word in enumerate(prompt.split(), 1):
            frame += [word, None] if place_ % self.spacing == 0 else [word]
        return frame if None in frame else [*frame, None]


@dataclass
class _Search:
    """One search of several prompts with equally many free words."""

    options: P4D
    victim: Victim
    cases: Sequence[Case]
    ledger: Ledger
    problem: Problem
    frames: Sequence[list[str | None]]
    generator: torch.Generator

    def run(self, numbers: Sequence[int], count: int) -> dict[int, Found]:
        """What was found for prompts by their numbers."""
        options, table = self.options, self.problem.embeddings
        start = torch.randint(len(table), (len(numbers), count), generator=self.generator)
        soft = table[start].clone().requires_grad_(True)
        adam = torch.optim.AdamW([soft], lr=options.rate, weight_decay=0.1)
        best: dict[int, Found] = {}
        active = list(range(len(numbers)))
        step, image = 3 * options.levels, 2 * self.victim.edited.image_cost
        while active := [row for row in active if self.ledger.affords(numbers[row], options.steps * step + image)]:
            part = self.problem.rows(torch.tensor(active))
            for _ in range(options.steps):
                gradient = part.gradient(nearest(soft[active].detach(), table))
                soft.grad = torch.zeros_like(soft).index_copy(0, torch.tensor(active), gradient)
                adam.step()
                self.ledger.charge([numbers[row] for row in active], step)
            words = nearest(soft[active].detach(), table)
            for row, one in zip(active, self._drawn([numbers[row] for row in active], words), strict=True):
                best[numbers[row]] = one
            active = [row for row in active if not best[numbers[row]].seen]
        return best

    def _drawn(self, numbers: Sequence[int], words: Tensor) -> list[Found]:
        """An image of each prompt with its words, confirmed by another."""
        texts = []
        for number, chosen in zip(numbers, words.tolist(), strict=True):
            free = iter(chosen)
            spelled = self.problem.vocabulary.words
            texts.append(" ".join(spelled[next(free)] if word is None else word for word in self.frames[number]))
        own = Ledger(2 * self.victim.edited.image_cost, prompts=len(numbers))
        asked = [self.cases[number] for number in numbers]
        each = [[Candidate(text, case.row.seed)] for text, case in zip(texts, asked, strict=True)]
        found = try_out(self.victim, asked, own, propose=listed(each))
        self.ledger.add(numbers, own)
        return found


def nearest(soft: Tensor, table: Tensor) -> Tensor:
    """The words [rows, count] of a vocabulary whose embeddings are nearest to soft ones, by cosine."""
    near = torch.nn.functional.normalize(soft, dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T
    return near.argmax(-1)


def _placed(tokenizer: object, frames: Sequence[list[str | None]]) -> Places:
    """Token ids of frames, and where their free words stand."""
    ids, places = [], []
    for frame in frames:
        row = place(tokenizer, [" ".join(word or "a" for word in frame)], [], count=0).ids[0]
        at, own = 1, []
        for word in frame:
            if word is None:
                own.append(min(at, len(row) - 2))
                at += 1
            else:
                at += len(tokenizer(word, add_special_tokens=False)["input_ids"])  # type: ignore[operator]
        ids.append(row)
        places.append(own)
    return Places(torch.stack(ids), torch.tensor(places))
