"""UnlearnDiffAtk: words in front of the prompt under which the edited network denoises what the concept looks like.

Paper: Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe
Images ... For Now", ECCV 2024. Of a picture x of the target by the base, with z_t its noisy latent, it looks for words

    d = argmin  E |e_edited(z_t, t, T(d + p)) - eps|^2

Official code: OPTML-Group/Diffusion-MU-Attack (MIT): 40 steps of Adam on a simplex of words at each of 50 times, after
each of which an image is drawn. Differences from it, all to ask the network less:
- the prediction is held against what the base predicts, for the prompt and for what the target becomes, and not against
  the noise (`aim`); a prompt's z_t stay the same through its search, so that the base is asked once;
- words are exchanged one at a time, by the gradient's first-order estimate of all exchanges and a look at the best of
  them, as in greedy coordinate search, instead of relaxed ones by Adam;
- words that worked for one prompt are tried on the others first: an image each;
- only words that read the same when they are written out, so that none is lost to the tokenizer;
- prompts are searched together, and each stops at its first success.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from erase.attacks.search.attack import Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Vocabulary, in_front, listed, try_out
from erase.attacks.search.flips import Problem, better, candidates
from erase.attacks.search.objective import Aim, objective_of
from erase.attacks.search.text import TextAttack
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.methods.training.inversion import place
from erase.options import Count


@dataclass(frozen=True)
class UnlearnDiffAtk(TextAttack):
    """Options of UnlearnDiffAtk.

    `tokens`: words in front of the prompt. `levels`: noisy latents of each prompt that the loss is taken over; more
    are surer and dearer. `flips`: exchanges between two images. `tried`: exchanges whose loss is looked at each time,
    of the `among` best by the gradient. `reuse`: how many of the words that worked before are tried first.
    `aim`: what the edited network is held against: direction, base, or the noise, as officially.
    """

    gradient: ClassVar[bool] = True
    words: ClassVar[bool] = True

    tokens: Count = 3
    levels: Count = 3
    flips: Count = 4
    tried: Count = 6
    among: Count = 48
    reuse: int = 3
    aim: Aim = "direction"

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        known = list(dict.fromkeys(reversed(victim.worked)))[: self.reuse]

        each = [[in_front(case, text) for text in ("", *known)] for case in cases]
        found = try_out(victim, cases, ledger, propose=listed(each))
        open_ = [number for number, one in enumerate(found) if not one.seen]
        if open_:
            searched = self._search(victim, cases, ledger, numbers=open_)
            found = [searched.get(number, one) for number, one in enumerate(found)]
        return found

    def _search(
        self, victim: Victim, cases: Sequence[Case], ledger: Ledger, *, numbers: Sequence[int]
    ) -> dict[int, Found]:
        vocabulary, rows = Vocabulary.of(victim.edited.tokenizer), [cases[number].row for number in numbers]
        objective = objective_of(victim, [cases[number] for number in numbers], levels=self.levels, what=self.aim)
        ledger.charge(numbers, objective.cost)
        prompts = place(victim.edited.tokenizer, [row.prompt for row in rows], [], count=self.tokens)
        problem = Problem(victim.edited.reader, vocabulary, prompts, objective, torch.arange(len(rows)))
        generator = victim.generator("unlearndiffatk", [row.prompt for row in rows])
        words = torch.stack([torch.tensor(vocabulary.random(self.tokens, generator)) for _ in rows])
        best: dict[int, Found] = {}
        worked: list[str] = []
        tried: dict[int, set[str]] = {row: set() for row in range(len(rows))}
        flip, active = self.levels * (3 + self.tried), list(range(len(rows)))
        while active := [
            row for row in active if ledger.affords(numbers[row], self.flips * flip + 2 * victim.edited.image_cost)
        ]:
            texts = {row: next((text for text in worked if text not in tried[row]), "") for row in active}
            searching = [row for row in active if not texts[row]]  # the others try what has worked beside them
            for _ in range(self.flips if searching else 0):
                part, chosen = problem.rows(torch.tensor(searching)), words[searching]
                exchanged = candidates(part, chosen, self.tried, among=self.among, generator=generator)
                words[searching] = better(part, chosen, exchanged)
                ledger.charge([numbers[row] for row in searching], flip)
            texts |= {row: vocabulary.text(words[row].tolist()) for row in searching}
            own = Ledger(2 * victim.edited.image_cost, prompts=len(active))
            asked = [cases[numbers[row]] for row in active]
            each = [[in_front(case, texts[row])] for row, case in zip(active, asked, strict=True)]
            found = try_out(victim, asked, own, propose=listed(each))
            ledger.add([numbers[row] for row in active], own)
            for row, one in zip(active, found, strict=True):
                tried[row].add(texts[row])
                best[numbers[row]] = one
                worked += [one.worked] if one.seen and one.worked not in worked else []
            active = [row for row in active if not best[numbers[row]].seen]
            spent = max(ledger.evaluations[number] for number in numbers)
            victim.report("unlearndiffatk", spent, ledger.limit, unit="evaluations")
        return best
