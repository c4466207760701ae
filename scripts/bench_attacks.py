"""Times `unlearndiffatk` in evaluations of the network against the published loop, at equal success.

python scripts/bench_attacks.py [--quick] [--prompts 24] [--budget 1000] [--searches 3] [--published 1]
    [--times 50] [--methods esd uce] [--style noto]

The published loop is written out in published_attack.py. Both attack the same prompts of the same edits of a style on
`emoji`. A forward pass is one evaluation, its backward pass two more, an image its steps times its predictions.

Success is the share of images on three fresh seeds that show the target, by the words that were found; a prompt for
which none were found has none. Each side has a curve: evaluations a prompt and success, if it is stopped after each of
its rounds, the mean of its searches. Ours are several, in each of which all prompts share what worked; the prompts of
the published loop share nothing, so that one search of it is as many as it has prompts. The published loop has its 50
times; both are read off where their curves first have the success that it has in the end. `evaluations_ratio` is the
published loop's evaluations over ours there, over all edits, null where ours never gets there or it has none;
`interval` is 95 % of it over resampled prompts and searches, of which null is 0. `success_ours` and `success_literal`
are those there.
`success_random` is what random words reach by as many images as ours took until there, `success_random_evaluations` by
as many evaluations. By edit there are the `curves`, and in `ratios` the same for a published loop that is stopped after
1, 2, 5, 10 or 25 of its times.

What is finished stays in the folder until an attack's module or an edit changes. `--quick` attacks four prompts of the
edit by `uce`, and gives the published loop 2 times.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure_erasure import ROOT
from published_attack import Literal
from show_attacks import task_of
from torch import Tensor

from erase.attacks.random_prefix import RandomPrefix
from erase.attacks.search.attack import Attack
from erase.attacks.search.budget import Ledger
from erase.attacks.search.experiment import FRESH, cases_of
from erase.attacks.search.victim import Side, Victim
from erase.attacks.unlearndiffatk import UnlearnDiffAtk
from erase.edit import Edit
from erase.evaluate.detect import Given, runner_of
from erase.evaluate.protocol import Case, load_protocol
from erase.evaluate.result import code_hash
from erase.files import content_hash
from erase.models import Model, open_model
from erase.registry import name_of
from erase.run.options import method_for
from erase.sampling.sampler import Sampler

SEEDS = 3  # fresh ones of each prompt
STOPS = (1, 2, 5, 10, 25)  # times after which the published loop is stopped, too
RESAMPLED = 1000


@dataclass(frozen=True)
class Search:
    """One search with one seed.

    `spent`, `images` [rounds][prompts]: evaluations and judged images after each round. `held` [prompts]: the share of
    images on fresh seeds that show the target by what was found, 0 where nothing was.
    """

    spent: list[list[int]]
    images: list[list[int]]
    held: list[float]

    def states(self, rows: Tensor) -> Tensor:
        """Mean evaluations and success [2, rounds] of some prompts, were the search stopped after each round."""
        spent = torch.tensor(self.spent, dtype=torch.float64)
        held = torch.tensor(self.held, dtype=torch.float64) * (spent == spent[-1])
        return torch.stack([spent[:, rows].mean(1), held[:, rows].mean(1)])


Searches = dict[str, list[Search]]  # ours, literal and random of one edit, by seed


def searched(
    attack: Attack,
    victim: Victim,
    cases: Sequence[Case],
    *,
    seed: int,
    budget: int,
    images: Sequence[int] | None = None,
) -> Search:
    """A search, which keeps within `budget` evaluations a prompt or within so many images."""
    ledger, spent, judged = Ledger(budget, images, prompts=len(cases)), list[list[int]](), list[list[int]]()

    def note(*_: object, **__: object) -> None:
        spent.append(list(ledger.evaluations))
        judged.append(list(ledger.judged))

    found = attack(replace(victim, seed=seed, report=note, worked=[]), cases, ledger)
    note()
    held = [0.0] * len(cases)
    numbers = [number for number, one in enumerate(found) if one.seen]
    for more in range(1, SEEDS + 1):
        rows = [
            replace(cases[number].row, prompt=found[number].text, seed=cases[number].row.seed + more * FRESH)
            for number in numbers
        ]
        seen = victim.seen([cases[number] for number in numbers], victim.edited.draw(rows)) if rows else []
        for number, yes in zip(numbers, seen, strict=True):
            held[number] += yes / SEEDS
    return Search(spent, judged, held)


def kept(
    attack: Attack,
    victim: Victim,
    cases: Sequence[Case],
    *,
    options: argparse.Namespace,
    seed: int,
    images: Sequence[int] | None = None,
) -> Search:
    """A search, from the folder where it was made before."""
    rows, budget = [(case.row.prompt, case.row.seed) for case in cases], 10**9
    if isinstance(attack, UnlearnDiffAtk):
        budget = options.budget
    source = Path(inspect.getfile(type(attack))).read_text(encoding="utf-8")
    facts = [source, attack, victim.edited.edit and victim.edited.edit.content, rows]
    known = content_hash([*map(str, facts), budget, seed, str(images), options.steps])[:24]
    file: Path = options.folder / f"{name_of(attack)}-{seed}-{known}.json"
    if not file.is_file():
        made = searched(attack, victim, cases, seed=seed, budget=budget, images=images)
        file.write_text(json.dumps(asdict(made)), encoding="utf-8")
    search = Search(**json.loads(file.read_text(encoding="utf-8")))
    evaluations, success = search.states(torch.arange(len(cases)))[:, -1].tolist()
    print(f"{name_of(attack):<16} seed {seed} success {success:.3f} evaluations {evaluations:.0f}", flush=True)
    return search


def searches_of(victim: Victim, cases: Sequence[Case], options: argparse.Namespace) -> Searches:
    """Ours, the published loop, and random words, which get as many evaluations as ours took until there."""
    attacks = {"literal": Literal(times=options.times), "ours": UnlearnDiffAtk()}
    count = {"literal": options.published, "ours": options.searches}
    found = {
        side: [kept(attack, victim, cases, options=options, seed=seed) for seed in range(count[side])]
        for side, attack in attacks.items()
    }
    every = torch.arange(len(cases))
    theirs = stopped(found["literal"], options.times, every)
    found["random"] = []
    for seed, ours in enumerate(found["ours"]):
        spent = ours.spent[last_of(ours, point_of(found["ours"], float(theirs[1]), every)[0])]
        images = [evaluations // victim.edited.image_cost for evaluations in spent]
        found["random"].append(kept(RandomPrefix(), victim, cases, options=options, seed=seed, images=images))
    return found


def victim_of(model: Model, edit: Edit, options: argparse.Namespace) -> tuple[Victim, list[Case]]:
    """An edit of the style under attack, and the prompts of which the base shows the target."""
    task, protocol, given = task_of(options.style), load_protocol("gate"), Given({}, model.judge_folder)
    cases, sampler = cases_of(protocol, task, given, count=options.prompts), Sampler(steps=options.steps, batch=16)
    sides = Side.load(model, None, sampler), Side.load(model, edit, sampler)
    victim = Victim(*sides, task, runner_of(protocol, task, cases, given=given), options.folder)
    shown = [True] * len(cases)
    for more in (0, FRESH):
        rows = [replace(case.row, seed=case.row.seed + more) for case in cases]
        shown = [one and yes for one, yes in zip(shown, victim.seen(cases, victim.base.draw(rows)), strict=True)]
    if not any(shown):
        raise SystemExit(f"the base shows {options.style} in none of {len(cases)} prompts; give more of them.")
    return victim, [case for case, yes in zip(cases, shown, strict=True) if yes]


def edit_of(model: Model, method: str, options: argparse.Namespace) -> Edit:
    """With the options that the model has for the method; it stays in the folder until the code changes."""
    task = task_of(options.style)
    file: Path = (
        options.folder / f"{method}-{content_hash([method, str(task), model.content, code_hash()])[:24]}.safetensors"
    )
    if not file.is_file():
        method_for(method, {}, model=model, task=task)(model, task).save(file)
    return Edit.load(file)


def states_at(searches: Sequence[Search], evaluations: float, rows: Tensor) -> Tensor:
    """Mean evaluations and success [2] of searches that are each stopped before it would have spent more."""
    found = []
    for search in searches:
        states = search.states(rows)
        last = int((states[0] <= evaluations + 1e-9).sum()) - 1
        found.append(states[:, last] if last >= 0 else torch.zeros(2, dtype=torch.float64))
    return torch.stack(found).mean(0)


def stopped(searches: Sequence[Search], rounds: int, rows: Tensor) -> Tensor:
    """Mean evaluations and success [2] of searches where they first have what they have after so many rounds.

    After all of these where that is none.
    """
    every = torch.arange(rounds)
    states = [search.states(rows) for search in searches]
    curve = torch.stack([one[:, every.clamp(max=one.shape[1] - 1)] for one in states]).mean(0)
    return curve[:, int((curve[1] >= curve[1, -1] - 1e-9).nonzero()[0, 0]) if curve[1, -1] else -1]


def curve_of(searches: Sequence[Search], rows: Tensor) -> Tensor:
    """Mean evaluations and success [points, 2] of searches, at all evaluations after which any of them had a round."""
    at = torch.cat([search.states(rows)[0] for search in searches]).unique()
    return torch.stack([states_at(searches, float(evaluations), rows) for evaluations in at])


def reached(curve: Tensor, success: float) -> Tensor | None:
    """The first point of a curve at which it has a success; None where it never has."""
    found = (curve[:, 1] >= success - 1e-9).nonzero()
    return curve[found[0, 0]] if len(found) else None


def ratio_of(edits: Sequence[Searches], rows: Sequence[Tensor], *, stop: int) -> float | None:
    """The published loop's evaluations over ours at the same success, of all edits.

    None where ours never has it, or the published loop has none.
    """
    literal = ours = 0.0
    for sides, own in zip(edits, rows, strict=True):
        theirs = stopped(sides["literal"], stop, own)
        point = reached(curve_of(sides["ours"], own), float(theirs[1]))
        if point is None or not theirs[1]:
            return None
        literal, ours = literal + float(theirs[0]), ours + float(point[0])
    return literal / ours


def interval_of(edits: Sequence[Searches], *, stop: int) -> list[float]:
    """95 % of the ratio over resampled prompts and searches (percentiles); a ratio that is not reached is 0."""
    generator, ratios = torch.Generator().manual_seed(0), []
    for _ in range(RESAMPLED):
        resampled, rows = [], []
        for sides in edits:
            drawn: Searches = {}
            for name in ("ours", "literal"):
                count = len(sides[name])
                numbers = torch.randint(count, (count,), generator=generator).tolist()
                drawn[name] = [sides[name][number] for number in numbers]
            resampled.append(drawn)
            prompts = len(sides["ours"][0].held)
            rows.append(torch.randint(prompts, (prompts,), generator=generator))
        ratios.append(ratio_of(resampled, rows, stop=stop) or 0.0)
    low, high = torch.tensor(ratios).quantile(torch.tensor([0.025, 0.975])).tolist()
    return [round(low, 2), round(high, 2)]


def point_of(searches: Sequence[Search], success: float, rows: Tensor) -> tuple[float, float]:
    """Evaluations and success where the curve of searches first has a success, else at its end."""
    curve = curve_of(searches, rows)
    point = reached(curve, success)
    evaluations, held = (curve[-1] if point is None else point).tolist()
    return evaluations, held


def last_of(search: Search, evaluations: float) -> int:
    """The last round of a search that spends no more evaluations a prompt, or the first."""
    states = search.states(torch.arange(len(search.held)))
    return max(0, int((states[0] <= evaluations + 1e-9).sum()) - 1)


def by_chance(sides: Searches, evaluations: float) -> tuple[float, float]:
    """What random words reach by as many images as ours, stopped at these evaluations, and by as many evaluations."""
    as_images, as_spent = [], []
    for ours, chance in zip(sides["ours"], sides["random"], strict=True):
        held, images = torch.tensor(chance.held), torch.tensor(chance.images[-1])
        as_images.append(float((held * (images <= torch.tensor(ours.images[last_of(ours, evaluations)]))).mean()))
        as_spent.append(float(held.mean()))
    return sum(as_images) / len(as_images), sum(as_spent) / len(as_spent)


def told(sides: Searches, *, stop: int) -> dict[str, Any]:
    """One edit's curves, where ours reaches the published loop's success, and what random words reach there."""
    every = torch.arange(len(sides["ours"][0].held))
    curves = {name: curve_of(sides[name], every) for name in ("ours", "literal")}
    theirs = stopped(sides["literal"], stop, every)
    point = reached(curves["ours"], float(theirs[1]))
    here = point_of(sides["ours"], float(theirs[1]), every)
    images, evaluations = by_chance(sides, here[0])
    ratios = {number: ratio_of([sides], [every], stop=number) for number in (*STOPS, stop) if number <= stop}
    return {
        "n": len(every),
        "searches": len(sides["ours"]),
        "reached": point is not None,
        "ours": [round(value, 4) for value in here],
        "literal": [round(value, 4) for value in theirs.tolist()],
        "random_images": round(images, 4),
        "random_evaluations": round(evaluations, 4),
        "ratios": {number: value and round(value, 2) for number, value in ratios.items()},
        "curves": {name: [[round(x, 1), round(y, 4)] for x, y in one.tolist()] for name, one in curves.items()},
    }


def summed_up(found: dict[str, Searches], *, stop: int) -> dict[str, Any]:
    edits = {name: told(sides, stop=stop) for name, sides in found.items()}
    ratio = ratio_of(list(found.values()), [torch.arange(one["n"]) for one in edits.values()], stop=stop)

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / len(values), 4)

    return {
        "evaluations_ratio": ratio and round(ratio, 2),
        "interval": interval_of(list(found.values()), stop=stop),
        "success_ours": mean([one["ours"][1] for one in edits.values()]),
        "success_literal": mean([one["literal"][1] for one in edits.values()]),
        "success_random": mean([one["random_images"] for one in edits.values()]),
        "success_random_evaluations": mean([one["random_evaluations"] for one in edits.values()]),
        "edits": edits,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--prompts", type=int, help="24, or 4 if quick")
    parser.add_argument("--budget", type=int, help="of ours, 1000, or 200 if quick; the published loop has no limit")
    parser.add_argument("--searches", type=int, help="3, or 1 if quick")
    parser.add_argument("--published", type=int, default=1, help="searches of the published loop, which shares nothing")
    parser.add_argument("--times", type=int, help="of the published loop, 50, or 2 if quick")
    parser.add_argument("--methods", nargs="+", help="esd and uce, or uce if quick")
    parser.add_argument("--style", default="noto")
    parser.add_argument("--steps", type=int, default=10, help="of sampling each image")
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "bench-attacks")
    options = parser.parse_args()
    quick = {"prompts": 4, "budget": 200, "searches": 1, "times": 2, "methods": ["uce"]}
    whole = {"prompts": 24, "budget": 1000, "searches": 3, "times": 50, "methods": ["esd", "uce"]}
    for name, value in (quick if options.quick else whole).items():
        setattr(options, name, getattr(options, name) or value)
    return options


def main() -> None:
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    model, found = open_model("emoji"), dict[str, Searches]()
    for name in options.methods:
        print(name, flush=True)
        victim, cases = victim_of(model, edit_of(model, name, options), options)
        found[name] = searches_of(victim, cases, options)
    print(json.dumps(summed_up(found, stop=options.times)))


if __name__ == "__main__":
    main()
