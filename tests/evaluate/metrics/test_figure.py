"""A figure's value is a mean over concepts or images, its interval that of its images."""

from __future__ import annotations

from fractions import Fraction

import pytest

from erase.evaluate.metrics.figure import mean, rate
from erase.evaluate.statistics.intervals import bootstrap_mean, wilson


def test_a_rate_is_the_mean_over_concepts_of_each_ones_share() -> None:
    items = {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0, "e": 1.0}
    concepts = {"a": "cat", "b": "cat", "c": "cat", "d": "dog", "e": "dog"}
    figure = rate(items, concepts, name="ira", group="kept", side="after", direction="higher", version="v")
    assert figure.value == pytest.approx(float((Fraction(2, 3) + 1) / 2))
    assert figure.n == 5
    assert figure.items == items


def test_a_rates_interval_is_wilsons_over_all_its_images_and_holds_its_value() -> None:
    items = {str(number): float(number % 3 == 0) for number in range(30)}
    concepts = dict.fromkeys(items, "cat")
    figure = rate(items, concepts, name="ua", group="erased", side="after", direction="higher", version="v")
    assert (figure.low, figure.high) == wilson(10, 30)
    assert figure.low < figure.value < figure.high


def test_a_mean_has_the_bootstraps_interval() -> None:
    items = {"a": 20.0, "b": 30.0, "c": 34.0}
    figure = mean(items, name="clip", group="kept", side="before", direction="higher", version="v")
    assert figure.value == pytest.approx(28.0)
    assert (figure.low, figure.high) == bootstrap_mean([20.0, 30.0, 34.0])
    assert (figure.n, figure.side, figure.direction) == (3, "before", "higher")
