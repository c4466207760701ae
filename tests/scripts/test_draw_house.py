"""The picture of the house is the one that the script draws, and its rows are in the order of the imports."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tests.loading import load_script
from tests.test_layout import level_of

ROOT = Path(__file__).parents[2]


def test_the_picture_is_what_the_script_draws() -> None:
    drawn = load_script(ROOT / "scripts/draw_house.py").draw()
    assert (ROOT / "docs/architecture.svg").read_text(encoding="utf-8") == drawn


def test_each_row_lies_below_those_that_import_from_it() -> None:
    rows = load_script(ROOT / "scripts/draw_house.py").ROWS
    levels = [[level_of(name) for names, _ in row for name in names.split(", ")] for row in rows]
    assert len(levels) > 5
    for above, below in pairwise(levels):
        assert min(above) < min(below)
