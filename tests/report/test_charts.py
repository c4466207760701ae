"""Plots: the numbers that they draw, and that what is drawn is well-formed."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from erase.evaluate.metrics.figure import Figure, mean
from erase.report.charts import (
    BINS,
    Point,
    Scale,
    curves,
    distribution,
    element,
    histogram,
    interval_bar,
    pareto,
    pareto_front,
    threshold_curve,
    titled,
)

BEFORE, AFTER = [3.0, 1.0, 2.0, 2.0], [0.5, 2.0]


def point(label: str, retention: float, erasure: float, *, is_base: bool = False) -> Point:
    return Point(label, (retention, retention - 0.1, retention + 0.1), (erasure, erasure - 0.1, erasure), is_base)


def figure(value: float, *, side: str = "after") -> Figure:
    made = mean({"a": value, "b": value}, name="clip", group="kept", side="after", direction="higher", version="v")
    return Figure(**{**vars(made), "side": side})


def tags(svg: str) -> list[str]:
    return [one.tag for one in ElementTree.fromstring(svg).iter()]


def test_a_threshold_curve_is_the_share_at_or_over_each_value() -> None:
    curve = threshold_curve(BEFORE, AFTER)
    assert curve.thresholds == (0.5, 1.0, 2.0, 3.0)
    assert curve.before == (1.0, 1.0, 0.75, 0.25)
    assert curve.after == (1.0, 0.5, 0.5, 0.0)


def test_a_drawn_curve_falls_at_the_value_itself() -> None:
    svg = curves(threshold_curve([1.0], [3.0]), span=(1.0, 3.0), label="one each")
    lines = [one for one in ElementTree.fromstring(svg).iter() if one.tag == "polyline"]
    before, after = (
        [tuple(map(float, corner.split(","))) for corner in line.attrib["points"].split()] for line in lines
    )
    left, right = before[0][0], before[-1][0]
    assert {x for x, y in before if y == before[0][1]} == {left}
    assert {x for x, y in after if y == after[0][1]} == {left, right}


def test_a_histogram_loses_no_value_and_none_falls_off_its_ends() -> None:
    values = [0.0, 0.01, 0.5, 0.999, 1.0]
    counts = histogram(values, 0.0, 1.0)
    assert len(counts) == BINS
    assert sum(counts) == len(values)
    assert (counts[0], counts[BINS // 2], counts[-1]) == (2, 1, 2)


def test_the_front_is_the_runs_that_no_run_beats_in_both() -> None:
    base = point("before", 1.0, 1.0, is_base=True)
    runs = [point("a", 0.9, 0.5), point("b", 0.5, 0.9), point("worse", 0.5, 0.4), point("c", 0.7, 0.7), base]
    assert [one.label for one in pareto_front(runs)] == ["b", "c", "a"]


def test_runs_that_are_equal_are_both_on_the_front() -> None:
    assert len(pareto_front([point("a", 0.5, 0.5), point("b", 0.5, 0.5)])) == 2


def test_no_run_in_the_same_place_hides_another() -> None:
    runs = [point("a", 0.9, 0.9), point("b", 0.9, 0.9), point("far", 0.2, 0.9), point("c", 0.905, 0.895)]
    circles = [one for one in ElementTree.fromstring(pareto(runs)).iter() if one.tag.rpartition("}")[2] == "circle"]
    radii = [float(one.attrib["r"]) for one in circles]
    assert radii[0] > radii[1] > radii[3] == radii[2]


def test_every_plot_is_well_formed_and_says_in_words_what_it_shows() -> None:
    plots = [
        curves(threshold_curve(BEFORE, AFTER), span=(0.5, 3.0), label="<a & b>"),
        distribution(BEFORE, AFTER, span=(0.5, 3.0), label='"quoted"'),
        interval_bar(figure(0.5, side="before"), figure(0.7), span=(0.0, 1.0), bound=0.8),
        interval_bar(None, figure(math.nan), span=(0.0, 1.0), bound=None),
        pareto([point("<run> & co", 0.9, 0.9), point("before", 1.0, 0.1, is_base=True)]),
    ]
    for svg in plots:
        assert ElementTree.fromstring(svg).attrib["aria-label"]
    assert "text" in tags(plots[0])
    assert tags(plots[1]).count("rect") == 5  # three bins before, two after
    assert tags(plots[2]).count("circle") == 2
    assert tags(plots[3]).count("circle") == 0
    assert "&lt;run&gt; &amp; co" in plots[4]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]), (14.2, 33.0, [15, 20, 25, 30]), (-3.0, 5.0, [-2, 0, 2, 4])],
)
def test_ticks_are_round_and_inside(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 100).ticks() == pytest.approx(ticks)


def test_what_stands_in_an_attribute_or_a_title_is_escaped() -> None:
    assert element("text", "<b>", class_='"x"') == '<text class="&#34;x&#34;">&lt;b&gt;</text>'
    assert titled("rect", "</title>", x=1) == '<rect x="1"><title>&lt;/title&gt;</title></rect>'
