"""Heat maps: counted again here, image by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from erase.evaluate.score import Scores
from erase.report.matrices import Cell, interference, retained, square
from tests.report.made import made


def test_interference_says_what_each_concept_is_taken_for(tmp_path: Path) -> None:
    findings = made(tmp_path, lambda row: {**row.labels, "style": "blob" if row.seed else "noto"})
    matrix = interference(findings)
    assert matrix is not None
    assert matrix.rows == ("noto", "blob", "twemoji")
    assert matrix.rows[0] in matrix.targets
    for row, cells in zip(matrix.rows, matrix.cells, strict=True):
        for column, cell in zip(matrix.columns, cells, strict=True):
            # Of each concept's four images two have seed 0, and become noto, and two seed 1, and become blob.
            assert cell == Cell(float(row == column), {"noto": 0.5, "blob": 0.5}.get(column, 0.0), 4)


def test_a_missing_image_has_a_column_of_its_own(tmp_path: Path) -> None:
    findings = made(tmp_path)
    gone = findings.pairs[0].after.id
    verdicts = {name: seen for name, seen in findings.scores.verdicts.items() if name != gone}
    matrix = interference(replace(findings, scores=replace(findings.scores, verdicts=verdicts)))
    assert matrix is not None
    assert matrix.columns[-1] == "no image"
    assert matrix.cells[0][-1] == Cell(0.0, 0.25, 4)


def test_the_square_counts_images_that_show_all_that_is_named(tmp_path: Path) -> None:
    findings = made(tmp_path, lambda row: {**row.labels, "object": "cat"})
    matrix = square(findings)
    assert matrix is not None
    assert (matrix.rows, matrix.columns) == (("noto", "blob", "twemoji"), ("cat", "dog"))
    assert set(matrix.cells) == {(Cell(1.0, 1.0, 2), Cell(1.0, 0.0, 2))}


def test_a_pair_that_no_prompt_names_is_no_cell(tmp_path: Path) -> None:
    rows = [
        pair.after.row for pair in made(tmp_path).pairs if pair.after.row.labels != {"style": "blob", "object": "dog"}
    ]
    matrix = square(made(tmp_path, rows=rows))
    assert matrix is not None
    assert matrix.cells[1] == (Cell(1.0, 1.0, 2), None)


def test_what_each_concept_keeps_is_its_own_accuracy(tmp_path: Path) -> None:
    assert retained(made(tmp_path)) == {
        "noto": Cell(1.0, 0.0, 4),
        "blob": Cell(1.0, 1.0, 4),
        "twemoji": Cell(1.0, 1.0, 4),
    }


def test_without_a_judge_there_is_no_heat_map(tmp_path: Path) -> None:
    findings = replace(made(tmp_path), scores=Scores(()))
    assert interference(findings) is None
    assert square(findings) is None
    assert retained(findings) == {}
