"""Everything as JSON and CSV: complete, standard, and read back as it was."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from erase.report import records
from tests.report.made import made, square

HOSTILE = 'a {object}, "quoted",\n</script> in {style} style'


def test_the_images_csv_has_every_image_with_its_prompt_seed_labels_and_scores(tmp_path: Path) -> None:
    findings = made(tmp_path, rows=square(HOSTILE))
    read = list(csv.DictReader(io.StringIO(records.as_csv(records.image_records(findings)), newline="")))
    assert len(read) == 2 * len(findings.pairs)
    for number, pair in enumerate(findings.pairs):
        after = read[2 * number + 1]
        assert (after["prompt"], after["seed"], after["side"]) == (
            pair.after.row.prompt,
            str(pair.after.row.seed),
            "after",
        )
        assert after["asked.object"] == pair.after.row.labels["object"]
        assert after["seen.style"] == findings.scores.verdicts[pair.after.id].get("style", "")
        assert float(after["scores.clip"]) == findings.values(pair.after)["clip"]
        assert (tmp_path / after["file"]).is_file()
    assert read[1]["scores.ua"] == "1.0"
    assert read[-1]["scores.ua"] == ""


def test_the_figures_csv_has_every_figure_with_its_interval(tmp_path: Path) -> None:
    findings = made(tmp_path)
    read = list(csv.DictReader(io.StringIO(records.as_csv(records.figure_records(findings.scores.figures)))))
    told = [(row["name"], row["group"], row["side"], float(row["value"]), float(row["low"])) for row in read]
    assert told == [(one.name, one.group, one.side, one.value, one.low) for one in findings.scores.figures]


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    findings = made(tmp_path)
    figures = tuple(replace(figure, value=math.nan) for figure in findings.scores.figures)
    value = records.everything(replace(findings, scores=replace(findings.scores, figures=figures)))
    read = json.loads(records.as_json(value), parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert {figure["value"] for figure in read["figures"]} == {None}
    assert len(read["images"]) == 2 * len(findings.pairs)
    assert read["verdict"]["state"] == "failed"


def test_a_missing_image_is_marked(tmp_path: Path) -> None:
    findings = made(tmp_path)
    findings.pairs[2].after.path.unlink()
    assert [one["pair"] for one in records.image_records(findings) if one["missing"]] == [3]


@pytest.mark.parametrize("start", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_prompt_is_never_a_formula_for_the_program_that_opens_the_csv(tmp_path: Path, start: str) -> None:
    findings = made(tmp_path, rows=square(start + " {object} in {style} style"))
    read = list(csv.DictReader(io.StringIO(records.as_csv(records.image_records(findings)), newline="")))
    for row, pair in zip(read[1::2], findings.pairs, strict=True):
        prompt = pair.after.row.prompt
        assert row["prompt"] == (f"'{prompt}" if prompt.startswith(start) else prompt)
    assert sum(row["prompt"].startswith("'") for row in read) == len(read) - 2
