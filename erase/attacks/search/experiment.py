"""One attack on one edited model, from its prompts to its result; stopped, it goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from erase.attacks.search.attack import Attack
from erase.attacks.search.budget import Ledger, check_budget
from erase.attacks.search.result import AttackResult, Attempt, Rate
from erase.attacks.search.victim import Side, Victim, check_edited
from erase.config.declared import names_minor
from erase.config.prompts import Row
from erase.context import Report, in_silence
from erase.errors import AttackRefused, NeverDrawn, ScoreFailed
from erase.evaluate.attacked import FILE
from erase.evaluate.detect import Given, runner_of
from erase.evaluate.protocol import Case, Protocol
from erase.evaluate.questions import evenly, make_cases
from erase.evaluate.result import code_hash, hashes_of, plain
from erase.evaluate.verify import Edited
from erase.files import content_hash, write_atomically
from erase.models import Model
from erase.registry import name_of
from erase.sampling.generate import png
from erase.sampling.pipelined import batched
from erase.sampling.sampler import Sampler
from erase.task import Task

FRESH = 1_000_003  # added to a prompt's seed: success is counted on a seed that no search has seen
NOISES = 1_000_003  # that prompts of the same seed are spread over
APART = 1_000_033  # added to an attack's seed for each further search
SEARCHES = 4  # where one search finds words that serve many prompts, and the next none
ATTEMPTS = "attempts.jsonl"
BASE = "base.json"  # of which prompts the base shows the target


@dataclass(frozen=True)
class Plan:
    """How an attack is made.

    `budget`: evaluations of the network for each prompt; more attacks harder. `prompts`: how many are attacked; fewer
    than 60 prove little. `searches`: parts of the prompts that are searched by themselves, each with a seed of its own,
    so that neither words nor a learned word decide over all prompts at once; by default four where an attack finds
    words, learned ones among them, else one. `at_once`: prompts searched together. `seed`: of all that the attack draws
    at random.
    """

    budget: int = 1000
    prompts: int = 60
    at_once: int = 16
    seed: int = 0
    sampler: Sampler | None = None
    searches: int | None = None

    def searches_of(self, attack: Attack) -> int:
        return self.searches or (SEARCHES if attack.changes in ("text", "embeddings") else 1)


def run_attack(
    attack: Attack,
    base: Model,
    edited: Edited,
    *,
    task: Task,
    protocol: Protocol,
    given: Given,
    folder: Path,
    plan: Plan | None = None,
    known: Path | None = None,
    report: Report = in_silence,
) -> AttackResult:
    """The attack's result, which is left in `folder` as `attack.json`, with the fresh images of every prompt.

    `known`: a file of what the base shows, for several attacks on the same prompts; by default one in `folder`.
    Raises AttackRefused for targets that concern minors, NeverDrawn for a base that never draws the target, BadOption
    for a budget of less than one image, ScoreFailed without a judge, and what opening the models raises.
    """
    plan = plan or Plan()
    sampler = plan.sampler or protocol.sampler
    plan = replace(plan, sampler=sampler)
    cases = cases_of(protocol, task, given, count=plan.prompts)
    check_attack(attack, edited.model, plan, task=task, cases=cases)
    runner = runner_of(protocol, task, cases, given=given)
    looking = {one.form.name: hashes_of(one.detector) for one in runner.watchers}
    facts = _facts(attack, base, edited, protocol=protocol, plan=plan) | {
        "judged": content_hash([asdict(task), looking])
    }
    if (found := _finished(folder, facts)) is not None:
        return found
    sides = Side.load(base, None, sampler), Side.load(edited.model, edited.edit, sampler)
    victim = Victim(*sides, task, runner, folder, plan.seed, report)
    asked = [facts["hashes"]["base"], facts["hashes"]["code"], facts["judged"], facts["sampler"]]
    both = _shown(victim, cases, file=known or folder / BASE, asked=asked)
    shown = Rate.of(both, [case.row.prompt for case in cases])
    victim.cases = [case for case, yes in zip(cases, both, strict=True) if yes]
    done = _resumed(folder, _identity(facts))
    _search_all(attack, victim, done, plan=plan)
    attempts = tuple(done[case.row.key] for case in victim.cases)
    result = AttackResult(name_of(attack), attempts, shown, plan.budget, facts)
    result.write(folder)
    return result


def _search_all(attack: Attack, victim: Victim, done: dict[tuple[str, int], Attempt], *, plan: Plan) -> None:
    """Adds to the attempts that are done those that are left, search by search, and writes each down."""
    kept, count = victim.cases, min(plan.searches_of(attack), len(victim.cases))
    for number in range(count):
        worked = [one.worked for one in done.values() if one.search == number and one.worked]
        searching = replace(victim, seed=plan.seed + number * APART, worked=worked)
        left = [case for case in kept[number::count] if case.row.key not in done]
        for part in batched(left, len(left) if attack.shared else plan.at_once):
            victim.report(name_of(attack), len(done), len(kept), unit="prompts")
            attempted = _attempted(attack, searching, part, budget=plan.budget, search=number)
            done |= {case.row.key: one for case, one in zip(part, attempted, strict=True)}
            with (victim.folder / ATTEMPTS).open("a", encoding="utf-8") as file:
                file.write("".join(map(_line, attempted)))
    victim.report(name_of(attack), len(kept), len(kept), unit="prompts")


def check_attack(attack: Attack, edited: Model, plan: Plan, *, task: Task, cases: Sequence[Case]) -> None:
    """What is known before any image is made.

    Raises AttackRefused for targets that concern minors and where no prompt asks for a target, BadOption for a budget
    of less than one image, BadModel for a quantised network or a T5 where a gradient is needed.
    """
    check_allowed(task, cases)
    if not cases:
        raise AttackRefused(f"no prompt asks for {', '.join(task.names)}, so nothing can be attacked; add some.")
    if plan.sampler:
        check_budget(name_of(attack), plan.budget, plan.sampler)
    check_edited(attack, edited, name_of(attack))


def cases_of(protocol: Protocol, task: Task, given: Given, *, count: int) -> list[Case]:
    """The questions of a protocol that ask for a target, each prompt and seed once, evenly chosen.

    Each prompt has noise of its own: words that suit one noise alone would else count for every prompt.
    """
    parts = [part.model_copy(update={"optional": True}) for part in protocol.form.prompts if part.role == "erased"]
    erased = replace(protocol, form=protocol.form.model_copy(update={"prompts": tuple(parts)}))
    asked = {one.row.key: one for one in make_cases(erased, task, given.paths)}
    return [replace(one, row=replace(one.row, seed=_own_seed(one.row))) for one in evenly(list(asked.values()), count)]


def _own_seed(row: Row) -> int:
    return row.seed + int(content_hash(row.prompt)[:15], 16) % NOISES


def check_allowed(task: Task, cases: Sequence[Case] = ()) -> None:
    """Raises AttackRefused if a target or a prompt speaks of a minor."""
    for text in [word for target in task.targets for word in target.words] + [case.row.prompt for case in cases]:
        if names_minor(text):
            raise AttackRefused(
                f'"{text[:80]}" speaks of a minor; no attack on such a target is made, whatever it is for. Take the '
                "target or the prompt out."
            )


def _shown(victim: Victim, cases: Sequence[Case], *, file: Path, asked: Sequence[object]) -> list[bool]:
    """Of which cases the base shows the target, on their own seed and on the fresh one; kept in a file.

    Raises NeverDrawn if there is none: nothing could come back.
    """
    try:
        known = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    rows = [case.row for case in cases]
    key = content_hash([*asked, [row.key for row in rows]])
    if len(both := known.get(key, ())) != len(cases):
        victim.report("base", 0, len(cases), unit="prompts")
        own = victim.seen(cases, victim.base.draw(rows))
        fresh = victim.seen(cases, victim.base.draw([replace(row, seed=row.seed + FRESH) for row in rows]))
        both = [one and other for one, other in zip(own, fresh, strict=True)]
        victim.report("base", len(cases), len(cases), unit="prompts")
        write_atomically(file, json.dumps(known | {key: both}) + "\n")
    if not any(both):
        raise NeverDrawn(
            f"the base model never draws {', '.join(victim.task.names)}: the judge sees it in none of {len(cases)} "
            "prompts, so nothing could be brought back; check target, prompts and judge."
        )
    return list(both)


def _attempted(attack: Attack, victim: Victim, cases: Sequence[Case], *, budget: int, search: int = 0) -> list[Attempt]:
    """The attempts at some prompts: plain, by the attack, and by its control with as many judged images."""
    began = time.monotonic()
    seeds = [case.row.seed + FRESH for case in cases]
    plain = [replace(case.row, seed=seed) for case, seed in zip(cases, seeds, strict=True)]
    before = _judged(victim, cases, victim.edited.draw(plain), kind="plain")
    ledger = Ledger(budget, prompts=len(cases))
    found = attack(victim, cases, ledger)
    success = _judged(victim, cases, attack.draw(victim, cases, found, seeds=seeds), kind="attack")
    control, beside = attack.control, found
    by_chance = success
    if control is not None:
        few = Ledger(budget, images=[max(1, count) for count in ledger.judged])
        beside = control(victim, cases, few)
        by_chance = _judged(victim, cases, control.draw(victim, cases, beside, seeds=seeds), kind="control")
    victim.worked += [one.worked for one in found if one.worked]
    seconds = (time.monotonic() - began) / len(cases)
    return [
        Attempt(
            case.row.prompt,
            case.row.seed,
            before[number],
            success[number],
            by_chance[number],
            found[number].seen,
            beside[number].seen,
            ledger.evaluations[number],
            ledger.judged[number],
            found[number].text,
            found[number].worked,
            seconds,
            search,
        )
        for number, case in enumerate(cases)
    ]


def _judged(victim: Victim, cases: Sequence[Case], pictures: Sequence[Image.Image], *, kind: str) -> list[bool]:
    """What is seen in fresh images, which are kept."""
    for case, picture in zip(cases, pictures, strict=True):
        name = content_hash([case.row.prompt, case.row.seed, kind])[:24]
        row = Row(case.row.prompt, case.row.seed + FRESH)
        write_atomically(victim.folder / "images" / kind / f"{name}.png", png(picture, row, name=name))
    return victim.seen(cases, pictures)


def _facts(attack: Attack, base: Model, edited: Edited, *, protocol: Protocol, plan: Plan) -> dict[str, Any]:
    """All that the result depends on."""
    options: dict[str, Any] = asdict(attack)  # type: ignore[call-overload]
    content = edited.edit.content if edited.edit else edited.model.content
    control, alone = attack.control, replace(protocol, form=protocol.form.model_copy(update={"attack": ()}))
    return {
        "options": options,
        "changes": attack.changes,
        "access": attack.access,
        "against": name_of(control) if control is not None else None,
        "protocol": protocol.title,
        "sampler": plan.sampler.settings if plan.sampler else {},
        "seed": plan.seed,
        "prompts": plan.prompts,
        "searches": plan.searches_of(attack),
        "at_once": plan.at_once,
        "budget_of": plan.budget,
        "hashes": {"base": base.content, "edited": content, "protocol": alone.sha256, "code": code_hash()},
    }


def _finished(folder: Path, facts: Mapping[str, Any]) -> AttackResult | None:
    """The result that a folder holds already, if it is that of the same attack."""
    try:
        found = AttackResult.from_json(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, ScoreFailed):
        return None
    return found if _identity(found.facts) == _identity(plain(facts)) else None


def _identity(facts: Mapping[str, Any]) -> str:
    """Hash of what a result depends on: not of the protocol's name."""
    return content_hash({key: value for key, value in facts.items() if key != "protocol"})


def _resumed(folder: Path, identity: str) -> dict[tuple[str, int], Attempt]:
    """The attempts of an attack that was stopped, if it was the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ATTEMPTS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    if not lines or json.loads(lines[0]).get("identity") != identity:
        write_atomically(file, json.dumps({"identity": identity}) + "\n")
        return {}
    attempts = []
    for line in lines[1:]:
        try:
            attempts.append(Attempt(**json.loads(line)))
        except ValueError:  # the line that was being written when it was stopped
            break
    write_atomically(file, json.dumps({"identity": identity}) + "\n" + "".join(map(_line, attempts)))
    return {(one.prompt, one.seed): one for one in attempts}


def _line(attempt: Attempt) -> str:
    return json.dumps(asdict(attempt), ensure_ascii=False) + "\n"
