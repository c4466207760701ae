"""What attacks on an edited model reached, as its verdict and its tables tell it: UA under the strongest one run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from erase.config.attacking import AttackForm
from erase.errors import ScoreFailed
from erase.evaluate.metrics.figure import Figure
from erase.files import sha256_of

FOLDER, FILE = "attacks", "attack.json"
TOLD = ("attack", "budget", "ua_attacked", "ua_clean", "success", "control", "evaluations", "shown_by_base", "few")


def place_of(folder: Path, form: AttackForm) -> Path:
    """Where an attack of a run or of a verification leaves its result."""
    return folder / FOLDER / form.title


def read_attacks(folder: Path, forms: Iterable[AttackForm]) -> list[dict[str, Any]]:
    """The figures of each attack that was made, with the SHA-256 of its file; raises ScoreFailed for one that is none.

    An attack without a result is left out.
    """
    found = []
    for path in (place_of(folder, form) / FILE for form in forms):
        if path.is_file():
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
                found.append({key: told[key] for key in TOLD} | {"sha256": sha256_of(path)})
            except (ValueError, KeyError, TypeError) as error:
                raise ScoreFailed(f"{path} is no result of an attack; remove {path.parent} and attack anew.") from error
    return found


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
