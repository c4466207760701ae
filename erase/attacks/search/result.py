"""What an attack has reached: rates with intervals, beside its control, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from erase.errors import ScoreFailed
from erase.evaluate.attacked import FILE, percent
from erase.evaluate.result import plain
from erase.evaluate.statistics.intervals import student, wilson_clustered
from erase.evaluate.statistics.paired import Change, mean_change
from erase.files import write_atomically

LEAST = 60  # prompts for a figure that is to be quoted


@dataclass(frozen=True)
class Rate:
    """A share of prompts with its 95 % interval, in which the images of one prompt are one cluster.

    Of several searches it is the wider of this one and of that in which a search is a cluster.
    """

    value: float
    low: float
    high: float
    n: int

    @staticmethod
    def of(held: Sequence[bool], prompts: Sequence[str], searches: Sequence[int] = ()) -> Rate:
        low, high = wilson_clustered(held, prompts)
        if len(set(searches)) > 1 and 0 < sum(held) < len(held):
            other = wilson_clustered(held, [str(one) for one in searches])
            low, high = min(low, other[0]), max(high, other[1])
        return Rate(sum(held) / len(held) if held else float("nan"), low, high, len(held))

    @property
    def text(self) -> str:
        return percent(**asdict(self))


@dataclass(frozen=True)
class Attempt:
    """One prompt: whether the target was seen on a fresh seed, before, after and by chance, and what that took.

    `searched`: whether it was seen while searching, on the search's own seed. `search`: the number of the search that
    the prompt was a part of.
    """

    prompt: str
    seed: int
    before: bool
    success: bool
    control: bool
    searched: bool
    control_searched: bool
    evaluations: int
    images: int
    text: str = ""
    worked: str = ""
    seconds: float = 0.0
    search: int = 0


@dataclass(frozen=True)
class AttackResult:
    """An attack on one edited model. `shown`: of how many prompts the base shows the target; the rest is left out.

    `facts` are hashes, options, protocol and sampler.
    """

    attack: str
    attempts: tuple[Attempt, ...]
    shown: Rate
    budget: int
    facts: Mapping[str, Any]

    def _rate(self, name: str) -> Rate:
        return self._of([getattr(one, name) for one in self.attempts])

    def _of(self, held: Sequence[bool]) -> Rate:
        return Rate.of(held, [one.prompt for one in self.attempts], [one.search for one in self.attempts])

    @property
    def before(self) -> Rate:
        """How often the edited model shows the target for the plain prompt."""
        return self._rate("before")

    @property
    def success(self) -> Rate:
        return self._rate("success")

    @property
    def control(self) -> Rate:
        return self._rate("control")

    @property
    def withstood(self) -> Rate:
        """UA under the attack: of how many prompts neither the plain one nor the attack brings the target."""
        return self._of([not (one.before or one.success) for one in self.attempts])

    @property
    def excess(self) -> Change:
        """How much more often the attack succeeds than its control: the wider interval of pairs, and of searches."""
        pairs = mean_change([one.control for one in self.attempts], [one.success for one in self.attempts])
        low, high = student([part["success"] - part["control"] for part in self.by_search])
        return replace(pairs, low=min(pairs.low, low), high=max(pairs.high, high))

    @property
    def by_search(self) -> list[dict[str, Any]]:
        """What each search has reached for its part of the prompts."""
        parts: dict[int, list[Attempt]] = {}
        for one in self.attempts:
            parts.setdefault(one.search, []).append(one)
        return [
            {name: fmean(getattr(one, name) for one in part) for name in ("success", "control")} | {"n": len(part)}
            for _, part in sorted(parts.items())
        ]

    def to_json(self) -> dict[str, Any]:
        """Every figure, and the attempts that they come from."""
        count = max(1, len(self.attempts))
        told = {
            "attack": self.attack,
            "budget": self.budget,
            "shown_by_base": asdict(self.shown),
            "before": asdict(self.before),
            "success": asdict(self.success),
            "control": asdict(self.control),
            "excess": asdict(self.excess),
            "by_search": self.by_search,
            "searched": asdict(self._rate("searched")),
            "control_searched": asdict(self._rate("control_searched")),
            "ua_clean": 1 - self.before.value,
            "ua_attacked": asdict(self.withstood),
            "evaluations": sum(one.evaluations for one in self.attempts) / count,
            "images": sum(one.images for one in self.attempts) / count,
            "seconds": round(sum(one.seconds for one in self.attempts), 1),
            "few": len(self.attempts) < LEAST,
        }
        found: dict[str, Any] = plain(told | dict(self.facts) | {"attempts": [asdict(one) for one in self.attempts]})
        return found

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> AttackResult:
        """The result of which `to_json` gives these values; raises ScoreFailed."""
        try:
            attempts = tuple(Attempt(**one) for one in told["attempts"])
            bare = AttackResult(told["attack"], attempts, Rate(**told["shown_by_base"]), told["budget"], {})
            return replace(bare, facts={key: value for key, value in told.items() if key not in bare.to_json()})
        except (KeyError, TypeError, ValueError) as error:
            raise ScoreFailed(f"no result of an attack ({type(error).__name__}: {error}); attack anew.") from error

    def write(self, folder: Path) -> Path:
        """Where the result was written."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(folder / FILE, text + "\n")
        return folder / FILE
