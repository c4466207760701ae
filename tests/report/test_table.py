"""The table says every figure before and after, in words and numbers that stand alone."""

from __future__ import annotations

import io

from rich.console import Console

from erase.evaluate.images import Side
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.score import Scores
from erase.report.table import number, table


def figure(name: str, value: float, *, side: Side, **rest: object) -> Figure:
    values = {"group": "erased", "low": value * 0.9, "high": min(1.0, value * 1.1), "n": 12, "direction": "higher"}
    return Figure(name=name, side=side, value=value, version="v", **(values | rest))  # type: ignore[arg-type]


def shown(scores: Scores) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table(scores))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_row_holds_both_sides_the_interval_the_count_and_the_direction() -> None:
    scores = Scores((figure("ua", 0.04, side="before"), figure("ua", 0.9, side="after")))
    (line,) = [line for line in shown(scores).splitlines() if "│clean UA " in line]
    assert [cell.strip() for cell in line.strip(" │").split("│")][1:] == [
        "4.0 %", "90.0 %", "81.0 - 99.0", "12", "▲ higher"
    ]  # fmt: skip


def test_a_mean_is_no_percentage_and_a_missing_side_is_a_dash() -> None:
    clip = figure("clip", 24.26, side="after", low=23.0, high=25.0, direction="lower")
    (line,) = [line for line in shown(Scores((clip,))).splitlines() if "CLIP score" in line]
    assert [cell.strip() for cell in line.strip(" │").split("│")][1:] == [
        "-",
        "24.3",
        "23.0 - 25.0",
        "12",
        "▼ lower",
    ]


def test_it_names_the_protocol_and_counts_what_is_missing() -> None:
    scores = Scores((figure("ua", 0.5, side="after"),), missing=("a", "b"))
    text = shown(scores)
    assert f"protocol {scores.protocol}" in text
    assert "2 images are missing or damaged and count as the worst case" in text
    assert "missing" not in shown(Scores(scores.figures))


def test_a_score_without_a_title_is_called_by_its_name() -> None:
    assert "sharpness" in shown(Scores((figure("sharpness", 0.5, side="after"),)))


def test_no_number_is_a_dash() -> None:
    assert number(figure("ua", float("nan"), side="after", low=0.0, high=1.0)) == "- %"
