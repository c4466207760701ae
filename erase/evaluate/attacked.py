"""What attacks on an edited model reached, as its verdict and its tables tell it: UA under the strongest one run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from erase.config.drawing import AttackForm
from erase.errors import ScoreFailed
from erase.evaluate.gate import Outcome
from erase.evaluate.images import Side
from erase.evaluate.metrics.figure import Figure, rate
from erase.files import sha256_of

FOLDER, FILE = "attacks", "attack.json"
NOT_RUN = "no_attack.txt"  # in the place of its result, why an attack would have shown nothing
TOLD = ("attack", "budget", "ua_attacked", "ua_clean", "success", "control", "evaluations", "shown_by_base", "few")


def place_of(folder: Path, form: AttackForm) -> Path:
    """Where an attack of a run or of a verification leaves its result."""
    return folder / FOLDER / form.title


def read_attacks(folder: Path, forms: Iterable[AttackForm]) -> list[dict[str, Any]]:
    """The figures of each attack that was made, with the SHA-256 of its file; raises ScoreFailed for one that is none.

    An attack without a result is left out.
    """
    found = []
    for form in forms:
        if (path := place_of(folder, form) / FILE).is_file():
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
                found.append({"title": form.title, **{key: told[key] for key in TOLD}, "sha256": sha256_of(path)})
            except (ValueError, KeyError, TypeError) as error:
                raise ScoreFailed(f"{path} is no result of an attack; remove {path.parent} and attack anew.") from error
    return found


def read_not_run(folder: Path, forms: Iterable[AttackForm]) -> list[str]:
    """Why attacks were not run that would have shown nothing, a line each."""
    why = {form.title: place_of(folder, form) / NOT_RUN for form in forms}
    return [
        said_not_run(title) + file.read_text(encoding="utf-8").strip() for title, file in why.items() if file.is_file()
    ]


def said_not_run(title: str) -> str:
    """How the line begins that tells why an attack was not run."""
    return f"the attack {title} was not run: "


def strongest(attacks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The attack that left the lowest UA; None where none was made."""
    return min(attacks, key=lambda one: float(one["ua_attacked"]["value"]), default=None)


def figures_under_attack(attacks: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """UA under the strongest attack, as the figure that stands before all others; none where none was made."""
    one = strongest(attacks)
    if one is None:
        return []
    ua, version = one["ua_attacked"], f"{one['attack']}, {one['budget']} evaluations a prompt"
    return [Figure("ua_attacked", "erased", "after", ua["value"], ua["low"], ua["high"], ua["n"], "higher", version)]


def clean_ua(
    outcomes: Iterable[Outcome],
    *,
    side: Side = "after",
    version: str = "the gate's yes and no",
    images: Mapping[tuple[str, int], Path] | None = None,
) -> list[Figure]:
    """UA by the protocol's own prompts: an image counts if no question finds a target in it.

    `images`: the files, by prompt and seed, after which the figure names its images.
    """
    items: dict[str, float] = {}
    concepts: dict[str, str] = {}
    for one in (one for one in outcomes if one.role == "erased"):
        name = images[one.prompt, one.seed].stem if images else f"{one.prompt}\n{one.seed}"
        items[name] = float(getattr(one, side) is False and items.get(name, 1.0))
        concepts.setdefault(name, one.concept)
    how: dict[str, Any] = {"name": "ua", "group": "erased", "side": side, "direction": "higher", "version": version}
    return [rate(items, concepts, **how)] if items else []


def headline(figures: Iterable[Figure]) -> str:
    """UA under the strongest attack and clean UA in a line, or clean UA and that nobody attacked; "" without either."""
    found: dict[str, Figure] = {}
    for one in figures:
        if one.side == "after":
            found.setdefault(one.name, one)
    said = {name: percent(value=one.value, low=one.low, high=one.high, n=one.n) for name, one in found.items()}
    clean = f"clean UA {said['ua']}" if "ua" in said else "clean UA not measured"
    if "ua_attacked" in said:
        return f"UA under {found['ua_attacked'].version} {said['ua_attacked']}, {clean}"
    return f"{clean}, not attacked" if "ua" in said else ""


def headline_of(attacks: Sequence[Mapping[str, Any]], outcomes: Iterable[Outcome]) -> str:
    """The headline of what attacks reached and of what was seen."""
    return headline([*figures_under_attack(attacks), *clean_ua(outcomes)])


def attack_lines(attacks: Iterable[Mapping[str, Any]]) -> list[str]:
    """What each attack has reached, a line each."""
    return [
        f"{one['title']} brings the target back in {percent(**one['success'])}, its control in "
        f"{100 * one['control']['value']:.1f} %{'; few prompts' if one['few'] else ''}"
        for one in attacks
    ]


def percent(*, value: float, low: float, high: float, n: int) -> str:
    """A share with its interval and what it is of, such as `91.7 % (74.1 to 97.7, n = 24)`."""
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f}, n = {n})"
