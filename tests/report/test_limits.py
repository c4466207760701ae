"""A page to send says what it leaves open, when it was measured, and names no folder of whoever made it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from erase.evaluate.score import Scores
from erase.report.page import report_html, write_report
from erase.report.verdict import not_shown, without_folders
from erase.task import Kind, Target, Task
from tests.report.made import made, recipe


@pytest.mark.parametrize("folder", ["/home/jane doe/models/sd15", "C:\\Users\\jane doe\\models\\sd15"])
def test_no_folder_of_its_maker_is_in_the_page_or_its_files(tmp_path: Path, folder: str) -> None:
    prompts = [{"name": folder + folder[-5] + "prompts.csv", "sha256": "d" * 64}]
    findings = replace(made(tmp_path), recipe=recipe() | {"model": folder, "generate": {"prompts": prompts}})
    for file in write_report(findings, tmp_path / "report.html"):
        text = file.read_text(encoding="utf-8")
        assert "jane" not in text
        assert "sd15" in text or file.suffix == ".csv"


def test_what_is_no_absolute_path_stays_as_it_is() -> None:
    value = {"model": "stabilityai/sd-turbo", "prompt": "a cat / a dog", "seeds": [0, 1], "none": None}
    assert without_folders(value) == value


def test_the_page_says_when_it_was_measured(tmp_path: Path) -> None:
    page = report_html(replace(made(tmp_path), date="2031-05-06T07:08:09+00:00"))
    assert page.count("2031-05-06") >= 2


def test_it_says_that_nobody_attacked_and_who_judged(tmp_path: Path) -> None:
    findings = made(tmp_path)
    page, told = report_html(findings), not_shown(findings)
    assert told[0].startswith("not attacked")
    assert any(findings.scores.protocol in text for text in told)
    assert all(text in page for text in told)
    write_report(findings, tmp_path / "report.html")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["not_shown"] == list(told)


def test_without_a_judge_it_says_that_nothing_was_judged(tmp_path: Path) -> None:
    told = not_shown(replace(made(tmp_path), scores=Scores(())))
    assert any(text.startswith("not judged") for text in told)


def test_it_names_the_targets_that_no_prompt_asked_for_by_another_word(tmp_path: Path) -> None:
    findings = made(tmp_path)
    assert "not asked by synonyms: noto" in not_shown(findings)
    asked = replace(findings, task=Task([Target("google", anchor="blob", synonyms=("noto",))]))
    assert not any(text.startswith("not asked by synonyms") for text in not_shown(asked))


@pytest.mark.parametrize(("kind", "said"), [("unsafe", True), ("object", False)])
def test_a_proxy_is_called_one(tmp_path: Path, kind: Kind, said: bool) -> None:
    told = not_shown(made(tmp_path, kind=kind, target="cat"))
    assert any("stand for" in text for text in told) == said


def test_a_verification_keeps_its_own_list(tmp_path: Path) -> None:
    findings = replace(made(tmp_path), recipe=recipe() | {"not shown": ["one sampler"]})
    assert not_shown(findings) == ("one sampler",)
