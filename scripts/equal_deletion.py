"""The strength of an edit at which so much of its target is gone: what stays is compared between equals alone.

`search` asks for the rate at a few strengths between 0 and 2 and halves the way between one that erases too little and
one that erases enough. Rates need not rise with the strength, and may jump: what was found is one of those asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

WITHIN = 0.05  # of the rate asked for: nearer is equal
HALVINGS = 8
# In this order, until one erases enough: the edit as it is, twice as far, what lies between.
STRENGTHS = (1.0, 2.0, 1.5, 1.75, 1.25, 0.5)
ERASES = 0.2  # more than the unedited model: below it a method has erased nothing whose price could be compared


@dataclass(frozen=True)
class Found:
    """The strength whose rate is nearest to the one asked for, and all rates that were looked at."""

    strength: float
    rate: float
    aim: float
    rates: Mapping[float, float]

    @property
    def reached(self) -> bool:
        return _near(self.rate, self.aim)

    @property
    def said(self) -> str:
        """Why it is not reached, in a few words; nothing where it is."""
        most, least = max(self.rates.values()), min(self.rates.values())
        if self.reached:
            return ""
        if most < self.aim:
            return f"reaches at most {100 * most:.3g}"
        if least > self.aim:
            return f"is never below {100 * least:.3g}"
        below, above = (
            max(rate for rate in self.rates.values() if rate < self.aim),
            min(rate for rate in self.rates.values() if rate > self.aim),
        )
        return f"jumps from {100 * below:.3g} to {100 * above:.3g}"


def search(rate_at: Callable[[float], float], aim: float) -> Found:
    """The strength at which the rate is within `WITHIN` of `aim`, or the nearest of those looked at."""
    rates: dict[float, float] = {}

    def at(strength: float) -> float:
        if strength not in rates:
            rates[strength] = rate_at(strength)
        return rates[strength]

    high = next((strength for strength in STRENGTHS if at(strength) >= aim - WITHIN), None)
    if high is not None and not _near(at(high), aim):
        below = [strength for strength, rate in rates.items() if strength < high and rate < aim]
        low = max(below) if below else 0.0
        for _ in range(HALVINGS if at(low) < aim else 0):
            middle = (low + high) / 2
            if _near(at(middle), aim):
                break
            low, high = (middle, high) if at(middle) < aim else (low, middle)
    strength = min(rates, key=lambda one: (abs(rates[one] - aim), one))
    return Found(strength, rates[strength], aim, rates)


def lowest(rates: Mapping[str, float], unedited: float) -> float | None:
    """The lowest rate of the methods that erase at all; None if none does."""
    return min((rate for rate in rates.values() if rate >= unedited + ERASES), default=None)


def _near(rate: float, aim: float) -> bool:
    return abs(rate - aim) <= WITHIN + 1e-9
