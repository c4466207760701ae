"""Times `unlearndiffatk` in evaluations of the network against the published loop, at equal success.

python scripts/bench_attacks.py [--quick] [--prompts 24] [--budget 1000]

The published loop, written out here from its description (Zhang et al. 2024): at each of 50 times, from the last one
of sampling to the first, 40 steps of Adam (rate 0.01, decay 0.1) on a simplex of words for each of the prefix's places,
sampled straight through with clipped gradients, each with new noise; then the likeliest words are read out, an image is
drawn from them, and the first one that the judge sees the target in ends it. Both attack the same prompts of the same
edits of a style on `emoji`, by `esd` and by `uce`. A forward pass is one evaluation, its
backward pass two more, an image its steps times its predictions. Success is counted on a fresh seed for both.

The last line is one JSON object: `evaluations_ratio`, the published loop's evaluations a prompt over ours, over all
edits; `success_ours`, `success_literal`, `success_random` (as many images of random prefixes as ours took), and by edit
the same with 95 % intervals. `--quick` attacks four prompts of the edit by `uce` at 5 of the 50 times.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from measure_erasure import ROOT
from show_attacks import task_of
from torch import Tensor

from erase.attacks.search.attack import Found, PromptAttack
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Vocabulary, in_front, listed, try_out
from erase.attacks.search.experiment import Plan, run_attack
from erase.attacks.search.result import AttackResult
from erase.attacks.search.victim import Victim
from erase.attacks.unlearndiffatk import UnlearnDiffAtk
from erase.evaluate.detect import Given
from erase.evaluate.edited import Edited
from erase.evaluate.protocol import Case, load_protocol
from erase.methods.training.inversion import place
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.run.options import method_for
from erase.sampling.sampler import Sampler

TASK = task_of("noto")


@dataclass(frozen=True)
class Literal(PromptAttack):
    """The published loop; `tokens` in front, `times` of the schedule, `inner` steps at each."""

    shared: ClassVar[bool] = True

    tokens: int = 3
    times: int = 50
    inner: int = 40
    rate: float = 0.01
    decay: float = 0.1

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        edited, rows = victim.edited, [case.row for case in cases]
        found = try_out(victim, cases, ledger, propose=listed([[in_front(case, "")] for case in cases]))
        clean = victim.base.latents(rows)
        vocabulary = Vocabulary.of(edited.tokenizer)
        table = edited.reader.embeddings(vocabulary.ids)
        prompts = place(edited.tokenizer, [row.prompt for row in rows], [], count=self.tokens)
        generator = victim.generator("literal")
        logits = torch.rand(len(rows), self.tokens, len(vocabulary.words), generator=generator).log().neg()
        words = (logits / logits.sum(-1, keepdim=True)).requires_grad_(True)
        adam = torch.optim.Adam([words], lr=self.rate, weight_decay=self.decay)
        every = edited.denoiser.times // self.times
        for time in range(every // 2, edited.denoiser.times, every):
            active = [number for number, one in enumerate(found) if not one.seen]
            if not active:
                break
            chosen, part = torch.tensor(active), prompts.rows(torch.tensor(active))
            level = edited.denoiser.level(torch.full((len(active),), time))
            for _ in range(self.inner):
                noise = torch.randn(clean[chosen].shape, generator=generator)
                soft = straight_through(words[chosen], generator) @ table
                given = edited.reader.read(part.ids, soft, part.places)
                times = torch.full((len(active),), time)
                predicted = edited.denoiser.predict(level.noisy(clean[chosen], noise), times, given)
                truth = edited.denoiser.truth(clean[chosen], noise, times)
                loss = (predicted - truth).square().flatten(1).mean(1).sum()
                (words.grad,) = torch.autograd.grad(loss, [words])
                adam.step()
                with torch.no_grad():
                    words.copy_(simplex(words))
            ledger.charge(active, 3 * self.inner)
            texts = [vocabulary.text(words[number].argmax(-1).tolist()) for number in active]
            asked = [cases[number] for number in active]
            own = Ledger(edited.image_cost, prompts=len(active))
            each = [[in_front(case, text)] for case, text in zip(asked, texts, strict=True)]
            for number, one in zip(active, try_out(victim, asked, own, propose=listed(each)), strict=True):
                found[number] = one
            ledger.add(active, own)
            victim.report("literal", time, edited.denoiser.times, unit="times")
        return found


def straight_through(words: Tensor, generator: torch.Generator) -> Tensor:
    """One word drawn for each place, as one-hot rows whose gradient, clipped to -1 .. 1, goes to its probabilities."""
    drawn = torch.multinomial(words.detach().flatten(0, 1), 1, generator=generator).view(words.shape[:2])
    hard = torch.nn.functional.one_hot(drawn, words.shape[-1]).float()
    through = words - words.detach()
    if through.requires_grad:
        through.register_hook(lambda gradient: gradient.clamp(-1, 1))
    return hard + through


def simplex(words: Tensor) -> Tensor:
    """The nearest point of the simplex, of each row (Held, Wolfe and Crowder 1974)."""
    ordered = words.sort(-1, descending=True).values
    excess = (ordered.cumsum(-1) - 1) / torch.arange(1, words.shape[-1] + 1)
    count = (ordered > excess).sum(-1, keepdim=True)
    return (words - excess.gather(-1, count - 1)).clamp(min=0)


def edits_of(model: Model, *, quick: bool) -> dict[str, Any]:
    edits = {"uce": UCE()(model, TASK)}
    return edits if quick else {"esd": method_for("esd", {}, model=model, task=TASK)(model, TASK)} | edits


def told(result: AttackResult) -> dict[str, Any]:
    said = result.to_json()
    return {
        "success": round(said["success"]["value"], 4),
        "interval": [round(said["success"]["low"], 4), round(said["success"]["high"], 4)],
        "evaluations": round(said["evaluations"], 1),
        "before": round(said["before"]["value"], 4),
        "control": round(said["control"]["value"], 4),
        "n": said["success"]["n"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--prompts", type=int, help="24, or 4 if quick")
    parser.add_argument("--budget", type=int, help="of ours, 1000, or 300 if quick; the published loop has no limit")
    parser.add_argument("--steps", type=int, default=10, help="of sampling each image")
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "bench-attacks")
    options = parser.parse_args()
    prompts, budget = (4, 300) if options.quick else (24, 1000)
    options.prompts, options.budget = options.prompts or prompts, options.budget or budget
    model = open_model("emoji")
    literal = Literal(times=5 if options.quick else 50)
    found: dict[str, dict[str, Any]] = {}
    for name, edit in edits_of(model, quick=options.quick).items():
        edited = Edited(model, edit, TASK)
        sides = {}
        for side, attack, budget in (("ours", UnlearnDiffAtk(), options.budget), ("literal", literal, 10**6)):
            result = run_attack(
                attack,
                model,
                edited,
                task=TASK,
                protocol=load_protocol("gate"),
                given=Given({}, model.judge_folder),
                folder=options.folder / name / side,
                plan=Plan(budget, options.prompts, sampler=Sampler(steps=options.steps, batch=16)),
            )
            sides[side] = told(result)
            print(name, side, sides[side], flush=True)
        found[name] = sides
    print(json.dumps(summed_up(found)))


def summed_up(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    def mean(side: str, what: str) -> float:
        return sum(sides[side][what] for sides in found.values()) / len(found)

    return {
        "evaluations_ratio": round(mean("literal", "evaluations") / mean("ours", "evaluations"), 2),
        "success_ours": round(mean("ours", "success"), 4),
        "success_literal": round(mean("literal", "success"), 4),
        "success_random": round(mean("ours", "control"), 4),
        "edits": found,
    }


if __name__ == "__main__":
    main()
