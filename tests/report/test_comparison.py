"""Several runs side by side: what may be compared, and what is said of it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from erase.errors import RunConflict
from erase.report.comparison import Comparison, comparison_table, differences, entries, harm, points
from erase.report.comparison_page import write_comparison
from erase.report.findings import Findings
from tests.report.made import as_asked, erased, harsh, made, square


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Findings]:
    return {name: made(tmp_path, after) for name, after in (("good", erased), ("harsh", harsh), ("none", as_asked))}


def test_other_prompts_or_seeds_are_refused_in_one_line_that_names_one(tmp_path: Path) -> None:
    rows = square()
    moved = [*rows[1:], replace(rows[0], seed=7)]
    with pytest.raises(RunConflict) as error:
        Comparison({"a": made(tmp_path), "b": made(tmp_path, rows=moved)})
    assert str(error.value) == (
        'a and b have different images: "a cat in noto style" with seed 0 is in a only (2 differ in all); '
        "compare runs of the same prompts and seeds."
    )


def test_the_same_rows_in_another_order_are_compared(tmp_path: Path) -> None:
    Comparison({"a": made(tmp_path), "b": made(tmp_path, rows=square()[::-1])})


def test_one_run_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(RunConflict, match="at least two"):
        Comparison({"a": made(tmp_path)})


def test_the_best_of_a_row_follows_its_direction(runs: dict[str, Findings]) -> None:
    found = {(entry.figure.name, entry.figure.group): entry for entry in entries(Comparison(runs))}
    assert found["ua", "erased"].best == 1.0
    assert found["style_accuracy", "erased"].best == 0.0
    assert found["ira", "kept"].best == 1.0
    assert found["cra", "all"].best is None  # all runs have the same
    assert found["ua", "erased"].before is not None
    assert found["ua", "erased"].before.value == 0.0


def test_figures_of_different_versions_do_not_share_a_row(runs: dict[str, Findings]) -> None:
    other = runs["harsh"]
    figures = tuple(replace(figure, version=f"{figure.version}-new") for figure in other.scores.figures)
    comparison = Comparison(
        {"good": runs["good"], "new": replace(other, scores=replace(other.scores, figures=figures))}
    )
    cells = [entry.cells for entry in entries(comparison)]
    assert cells
    assert all((left is None) != (right is None) for left, right in cells)


def test_the_plot_has_each_run_and_the_model_before(runs: dict[str, Findings]) -> None:
    found = {point.label: (point.retention[0], point.erasure[0]) for point in points(Comparison(runs))}
    # Harsh keeps the four blob images of the eight kept ones, which is less than its objects.
    assert found == {"good": (1.0, 1.0), "harsh": (0.5, 1.0), "none": (1.0, 0.0), "before": (1.0, 0.0)}


def test_runs_of_different_base_images_share_no_before(runs: dict[str, Findings]) -> None:
    pairs = tuple(replace(pair, before=replace(pair.before, id=f"x{pair.before.id}")) for pair in runs["none"].pairs)
    comparison = Comparison({"good": runs["good"], "moved": replace(runs["none"], pairs=pairs)})
    assert "different images" in comparison.caution
    assert all(entry.before is None for entry in entries(comparison))
    assert "before" not in [point.label for point in points(comparison)]


def test_differences_are_paired_by_row_and_tested_by_mcnemar(tmp_path: Path) -> None:
    good, harmed = made(tmp_path), made(tmp_path, harsh, rows=square()[::-1])
    found = {(one.figure.name, one.figure.group): one for one in differences(Comparison({"a": good, "b": harmed}))}
    ira = found["ira", "kept"]
    assert (ira.label, ira.change.value, ira.change.n) == ("b", -0.5, 8)  # the four of twemoji
    assert (ira.lost, ira.gained, ira.p) == (4, 0, 2 * 0.5**4)
    assert not ira.is_better
    assert not ira.is_certain  # four images may be chance
    same = found["ua", "erased"]
    assert (same.change.value, same.change.low, same.change.high, same.lost, same.p) == (0.0, 0.0, 0.0, 0, 1.0)
    clip = found["clip", "kept"]
    assert (clip.lost, clip.gained) == (None, None)
    assert 0 < clip.p <= 1
    assert clip.change.low <= clip.change.value <= clip.change.high


@pytest.mark.parametrize(("copies", "certain"), [(1, False), (3, True)])
def test_fewer_than_ten_pairs_are_too_few_and_never_more_than_chance(
    tmp_path: Path, copies: int, certain: bool
) -> None:
    rows = [replace(row, seed=row.seed + 10 * copy) for copy in range(copies) for row in square()]
    runs = {"kept": made(tmp_path, as_asked, rows=rows), "gone": made(tmp_path, erased, rows=rows)}
    found = {(one.figure.name, one.figure.group): one for one in differences(Comparison(runs))}
    ua = found["ua", "erased"]
    assert ua.change.n == 4 * copies
    assert ua.change.low > 0
    assert (ua.is_certain, ua.is_too_few) == (certain, not certain)
    page = write_comparison(Comparison(runs), tmp_path / "page.html")[-1].read_text(encoding="utf-8")
    assert ("too few" in page) == any(one.is_too_few for one in found.values())


def test_differences_are_in_the_files(runs: dict[str, Findings], tmp_path: Path) -> None:
    files = write_comparison(Comparison(runs), tmp_path / "both.html")
    told = json.loads(files[0].read_text(encoding="utf-8"))["differences"]
    assert {one["run"] for one in told} == {"harsh", "none"}
    assert {one["against"] for one in told} == {"good"}
    ua = next(one for one in told if one["run"] == "none" and one["name"] == "ua")
    assert (ua["value"], ua["lost"], ua["gained"]) == (-1.0, 4, 0)
    assert "McNemar" in files[2].read_text(encoding="utf-8")


def test_over_runs_of_different_targets_the_matrix_frames_what_each_erases(tmp_path: Path) -> None:
    runs = {name: made(tmp_path, target=name) for name in ("noto", "twemoji")}
    matrix = harm(Comparison(runs))
    assert matrix is not None
    assert matrix.own == {("noto", "noto"), ("twemoji", "twemoji")}
    page = write_comparison(Comparison(runs), tmp_path / "both.html")[-1].read_text(encoding="utf-8")
    assert page.count(", erased by it:") == 2


def test_harm_has_a_row_a_run_and_a_column_a_concept(runs: dict[str, Findings]) -> None:
    matrix = harm(Comparison(runs))
    assert matrix is not None
    assert (matrix.rows, matrix.columns) == (("good", "harsh", "none"), ("noto", "blob", "twemoji"))
    assert [[cell.after for cell in row if cell] for row in matrix.cells] == [[0, 1, 1], [0, 1, 0], [1, 1, 1]]


def test_the_table_has_values_with_intervals(runs: dict[str, Findings]) -> None:
    console = Console(width=200, record=True)
    console.print(comparison_table(Comparison(runs)))
    text = console.export_text()
    assert "100.0 % (51 to 100)" in text
    assert all(label in text for label in runs)


def test_the_files_hold_every_run(runs: dict[str, Findings], tmp_path: Path) -> None:
    files = write_comparison(Comparison(runs), tmp_path / "out" / "both.html")
    assert [path.name for path in files] == ["both.json", "both.csv", "both.html"]
    value = json.loads(files[0].read_text(encoding="utf-8"))
    assert list(value["runs"]) == list(runs)
    rows = list(csv.DictReader(io.StringIO(files[1].read_text(encoding="utf-8"))))
    assert len(rows) == sum(len(run.scores.figures) for run in runs.values())
    page = files[2].read_text(encoding="utf-8")
    prompts = {pair.after.row.prompt for pair in runs["good"].pairs}
    assert len(prompts) == 7
    assert page.count('<div class="stage">') == len(prompts) * (len(runs) + 1)


def test_images_of_unsafe_tasks_are_veiled(tmp_path: Path) -> None:
    runs = {name: made(tmp_path, kind="unsafe", target="cat") for name in ("one", "two")}
    page = write_comparison(Comparison(runs), tmp_path / "both.html")[-1].read_text(encoding="utf-8")
    assert page.count("data-veiled>") == page.count('<div class="stage">') > 0


def test_markup_in_prompts_names_and_protocols_stays_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    one = made(tmp_path / "one", rows=square(evil + " {object} in {style} style"), target="noto", name=evil)
    figures = tuple(replace(figure, name=evil, version=evil) for figure in one.scores.figures)
    scores = replace(one.scores, protocol=evil)
    for write in (
        lambda: write_comparison(
            Comparison({evil: one, "b": replace(one, edit={**one.edit, "method": evil})}), tmp_path / "c.html"
        ),
        lambda: (tmp_path / "c.html").write_text(
            replace(one, scores=replace(scores, figures=figures))._repr_html_(), encoding="utf-8"
        ),
    ):
        write()
        page = (tmp_path / "c.html").read_text(encoding="utf-8")
        assert "onerror" in page
        assert "<img src=x" not in page
        assert "<script>alert" not in page
