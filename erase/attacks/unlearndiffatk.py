"""UnlearnDiffAtk: words in front of the prompt under which the edited network denoises what the concept looks like.

Paper: Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe
Images ... For Now", ECCV 2024. Of a picture x of the target by the base, with z_t its noisy latent, it looks for words

    d = argmin  E |e_edited(z_t, t, T(d + p)) - eps|^2

Official code: OPTML-Group/Diffusion-MU-Attack (MIT): 40 steps of Adam on a simplex of words at each of 50 times, after
each of which an image is drawn. Differences from it, all to ask the network less:
- eps is what the base predicts for the same z_t under the plain prompt (`aim`), whose error is not in the loss, and
  a prompt's z_t stay the same through its search, so that the base is asked once;
- words are exchanged one at a time, by the gradient's first-order estimate of all exchanges and a look at the best of
  them, as in greedy coordinate search, instead of relaxed ones by Adam;
- words that worked for one prompt are tried on the next ones first: an image each;
- only words that read the same when they are written out, so that none is lost to the tokenizer;
- prompts are searched together, and each stops at its first success.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from erase.attacks.search.attack import Found, TextAttack
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, Vocabulary, listed, try_out
from erase.attacks.search.flips import Problem, better, candidates
from erase.attacks.search.victim import Victim
from erase.errors import BadOption
from erase.evaluate.protocol import Case
from erase.methods.training.inversion import place
from erase.models import Condition


@dataclass(frozen=True)
class UnlearnDiffAtk(TextAttack):
    """Options of UnlearnDiffAtk.

    `tokens`: words in front of the prompt. `levels`: noisy latents of each prompt that the loss is taken over; more
    are surer and dearer. `flips`: exchanges between two images. `tried`: exchanges whose loss is looked at each time,
    of the `among` best by the gradient. `reuse`: how many of the words that worked before are tried first.
    `aim`: what the edited network is to predict, the base's prediction or the noise itself, as officially.
    """

    tokens: int = 3
    levels: int = 3
    flips: int = 4
    tried: int = 6
    among: int = 48
    reuse: int = 3
    aim: Literal["base", "noise"] = "base"

    def __post_init__(self) -> None:
        for name in ("tokens", "levels", "flips", "tried", "among"):
            if getattr(self, name) < 1:
                raise BadOption(f"unlearndiffatk: {name} is {getattr(self, name)}; expected 1 or more.")

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        victim.check_gradient("unlearndiffatk")
        known = list(dict.fromkeys(reversed(victim.worked)))[: self.reuse]

        each = [
            [Candidate(case.row.prompt, case.row.seed)]
            + [Candidate(f"{text} {case.row.prompt}", case.row.seed, text) for text in known]
            for case in cases
        ]
        found = try_out(victim, cases, ledger, listed(each))
        open_ = [number for number, one in enumerate(found) if not one.seen]
        if open_:
            searched = self._search(victim, cases, ledger, numbers=open_)
            found = [searched.get(number, one) for number, one in enumerate(found)]
        return found

    def _search(
        self, victim: Victim, cases: Sequence[Case], ledger: Ledger, *, numbers: Sequence[int]
    ) -> dict[int, Found]:
        vocabulary = Vocabulary.of(victim.edited.tokenizer)
        problem = self._problem(victim, [cases[number] for number in numbers], vocabulary)
        ledger.charge(numbers, self.levels)
        generator = victim.generator("unlearndiffatk", [cases[number].row.prompt for number in numbers])
        words = torch.stack([torch.tensor(vocabulary.random(self.tokens, generator)) for _ in numbers])
        best: dict[int, Found] = {}
        active = list(range(len(numbers)))
        round_cost = self.flips * self.levels * (3 + self.tried) + victim.edited.image_cost
        while active := [row for row in active if ledger.affords(numbers[row], round_cost)]:
            part, chosen = problem.rows(torch.tensor(active)), words[active]
            for _ in range(self.flips):
                chosen = better(
                    part, chosen, candidates(part, chosen, self.tried, among=self.among, generator=generator)
                )
                ledger.charge([numbers[row] for row in active], self.levels * (3 + self.tried))
            words[active] = chosen
            tried = self._tried(victim, [cases[numbers[row]] for row in active], vocabulary, words=chosen)
            ledger.charge([numbers[row] for row in active], victim.edited.image_cost, images=1)
            best |= {numbers[row]: one for row, one in zip(active, tried, strict=True)}
            active = [row for row, one in zip(active, tried, strict=True) if not one.seen]
        return best

    def _tried(self, victim: Victim, cases: Sequence[Case], vocabulary: Vocabulary, *, words: Tensor) -> list[Found]:
        """An image of each prompt with its words in front."""
        texts = [vocabulary.text(one) for one in words.tolist()]
        own = Ledger(victim.edited.image_cost, prompts=len(cases))
        rows = [case.row for case in cases]
        each = [[Candidate(f"{text} {row.prompt}", row.seed, text)] for text, row in zip(texts, rows, strict=True)]
        return try_out(victim, cases, own, listed(each))

    @torch.no_grad()
    def _problem(self, victim: Victim, cases: Sequence[Case], vocabulary: Vocabulary) -> Problem:
        """Each prompt's noisy latents, and what the edited network is to predict for them."""
        edited, base = victim.edited, victim.base
        rows = [case.row for case in cases]
        clean = base.latents(rows).repeat_interleave(self.levels, 0)
        generator = victim.generator("levels", [(row.prompt, row.seed) for row in rows])
        # One time of each of equal parts of the noise schedule, so that a prompt's few levels are spread over it.
        within = torch.rand(len(rows), self.levels, generator=generator)
        times = ((torch.arange(self.levels) + within) / self.levels * edited.denoiser.times).long().flatten()
        noise = torch.randn(clean.shape, generator=generator)
        noisy = edited.denoiser.level(times).noisy(clean, noise)
        if self.aim == "base":
            states = base.encoder.states(place(base.tokenizer, [row.prompt for row in rows], [], count=0).ids)
            aims = base.denoiser.predict(noisy, times, Condition(states.repeat_interleave(self.levels, 0)))
        else:
            aims = edited.denoiser.truth(clean, noise, times)
        prompts = place(edited.tokenizer, [row.prompt for row in rows], [], count=self.tokens)

        def losses(states: Tensor, which: Tensor) -> Tensor:
            repeated = Condition(states.repeat_interleave(self.levels, 0))
            index = (which[:, None] * self.levels + torch.arange(self.levels)).flatten()
            predicted = edited.denoiser.predict(noisy[index], times[index], repeated)
            return (predicted - aims[index]).square().flatten(1).mean(1).view(-1, self.levels).mean(1)

        return Problem(edited.encoder, vocabulary, prompts, losses, torch.arange(len(rows)))
