"""`erase edit`: an edit from options is the library's, and contradictions are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.cli.edit import make_task, parse_option
from erase.edit import Edit
from erase.errors import BadOption, BadTask
from erase.methods.uce import UCE
from erase.models import Model
from erase.task import Target, Task
from tests.recipes import command, refused

Capture = pytest.CaptureFixture[str]


def test_an_edit_from_options_is_the_librarys(capsys: Capture, model: Model, tmp_path: Path) -> None:
    file = tmp_path / "noto.safetensors"
    flags = ["--method", "uce", "-t", "noto", "-a", "blob", "-k", "cat", "--option", "lamb=0.25", "--strength", "0.5"]
    said = command(capsys, "edit", "-m", model.path, *flags, "-o", file)
    assert (said.code, said.out) == (0, f"edit  {file}\n")
    task = Task((Target("noto", "style", anchor="blob"),), ("cat",))
    assert Edit.load(file).content == UCE(lamb=0.25)(model, task).scaled(0.5).content
    assert Edit.load(file).info.options["lamb"] == 0.25


def test_an_anchor_serves_all_targets_or_each_has_its_own() -> None:
    def anchors(*given: str) -> list[str]:
        return [one.anchor for one in make_task("object", ["cat", "dog"], anchors=list(given), keeps=[]).targets]

    assert anchors() == ["", ""]
    assert anchors("car") == ["car", "car"]
    assert anchors("car", "fish") == ["car", "fish"]
    with pytest.raises(BadTask, match="3 anchors for 2 targets"):
        anchors("car", "fish", "rose")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("lamb=0.5", ("lamb", 0.5)),
        (" tokens = all", ("tokens", "all")),
        ("on=true", ("on", True)),
        ("x=[1, 2]", ("x", [1, 2])),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_an_options_value_is_read_as_in_a_pipeline(text: str, pair: tuple[str, object]) -> None:
    assert parse_option(text) == pair


@pytest.mark.parametrize("text", ["lamb", "=1", "x=[1"])
def test_an_option_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match="key=value"):
        parse_option(text)


@pytest.mark.parametrize("flags", [["-t", "noto"], ["-a", "blob"], ["-k", "cat"], ["--option", "lamb=1"]])
def test_options_that_a_pipeline_would_ignore_are_refused(capsys: Capture, flags: list[str]) -> None:
    assert "not both" in refused(capsys, "edit", "erase-style", *flags)
