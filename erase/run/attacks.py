"""The attacks that a pipeline or a protocol names, made one after the other on what was edited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erase.config.drawing import AttackForm
from erase.errors import NeverDrawn
from erase.evaluate.attacked import FILE, FOLDER, NOT_RUN, place_of
from erase.files import write_atomically
from erase.run.options import attack_with

if TYPE_CHECKING:
    from erase.context import Report
    from erase.evaluate.detect import Given
    from erase.evaluate.edited import Edited
    from erase.evaluate.protocol import Protocol
    from erase.models import Model
    from erase.sampling.sampler import Sampler
    from erase.task import Task


def check_attacks(forms: Sequence[AttackForm], task: Task, sampler: Sampler, *, model: Model | None = None) -> None:
    """Raises UnknownName or BadOption for an attack or a budget that cannot be, AttackRefused for the target.

    With the edited `model` also BadModel for one of which an attack needs a gradient that it has not.
    """
    if not forms:
        return
    from erase.attacks.search.budget import check_budget
    from erase.attacks.search.experiment import check_allowed
    from erase.attacks.search.victim import check_edited

    check_allowed(task)
    for form in forms:
        attack = attack_with(form.name, form.options)
        if model is not None:
            check_edited(attack, model, form.name)
        check_budget(form.name, form.budget, sampler)


def attack_all(
    base: Model, edited: Edited, protocol: Protocol, *, task: Task, given: Given, folder: Path, report: Report
) -> None:
    """Makes each attack of a protocol, and leaves its result in `folder`, or why it would show nothing.

    Raises what else `run_attack` raises.
    """
    from erase.attacks.search.experiment import BASE, Plan, run_attack

    for form in protocol.form.attack:
        place = place_of(folder, form)
        (place / NOT_RUN).unlink(missing_ok=True)
        plan = Plan(form.budget, form.prompts, seed=form.seed, searches=form.searches)
        attack = attack_with(form.name, form.options)
        what: Any = {"task": task, "protocol": protocol, "given": given, "report": report}
        what["known"] = folder / FOLDER / BASE
        try:
            run_attack(attack, base, edited, **what, folder=place, plan=plan)
        except NeverDrawn as why:
            (place / FILE).unlink(missing_ok=True)
            write_atomically(place / NOT_RUN, f"{why}\n")


def has_attacks(folder: Path, forms: Sequence[AttackForm]) -> bool:
    """Whether every attack has left its result, or why it was not run."""
    return all(any((place_of(folder, form) / name).is_file() for name in (FILE, NOT_RUN)) for form in forms)
