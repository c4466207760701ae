"""The attacks that a pipeline or a protocol names, made one after the other on what was edited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from erase.config.attacking import AttackForm
from erase.evaluate.attacked import FILE, place_of
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
    from erase.attacks.search.victim import check_gradient

    check_allowed(task)
    for form in forms:
        attack = attack_with(form.name, form.options)
        if model is not None and getattr(attack, "gradient", False):
            check_gradient(model, form.name)
        check_budget(form.name, form.budget, sampler)


def attack_all(
    base: Model, edited: Edited, protocol: Protocol, *, task: Task, given: Given, folder: Path, report: Report
) -> None:
    """Makes each attack of a protocol, and leaves its result in `folder`; raises what `run_attack` raises."""
    from erase.attacks.search.experiment import Plan, run_attack

    for form in protocol.form.attack:
        run_attack(
            attack_with(form.name, form.options),
            base,
            edited,
            task=task,
            protocol=protocol,
            given=given,
            folder=place_of(folder, form),
            plan=Plan(form.budget, form.prompts, seed=form.seed),
            report=report,
        )


def has_attacks(folder: Path, forms: Sequence[AttackForm]) -> bool:
    """Whether every attack has left its result."""
    return all((place_of(folder, form) / FILE).is_file() for form in forms)
