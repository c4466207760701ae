"""Models that come without a judge: a CLIP judges their runs, from options alone, and its absence is told in time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from erase.evaluate.detect import runner_of
from erase.evaluate.neighbours import LEAST, NEIGHBOURS, beside, choices
from erase.evaluate.protocol import load_protocol
from erase.evaluate.questions import make_cases, rows_asked
from erase.run.pipeline import read_pipeline
from erase.task import KINDS, Kind, Target, Task
from tests.finished import run_of
from tests.recipes import command, refused, tiny_recipe

Capture = pytest.CaptureFixture[str]
SMALL = """\
version: "1"
description: few prompts
source: a test
sampler: {steps: 1, guidance: 2.0, batch: 8}
detector: {name: clip_zero_shot, version: local, options: {template: "{}"}}
prompts:
  - {role: erased, aspect: name, fill: names, templates: ["a cat in {word} style"], seeds: [0, 1]}
  - {role: kept, aspect: neighbours, fill: neighbours, templates: ["a cat in {word} style"], seeds: [0]}
  - {role: kept, aspect: unrelated, fill: nothing, templates: ["a rose"], seeds: [0]}
"""


@pytest.fixture
def judgeless(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return Path(shutil.copytree(tiny_model, tmp_path / "sd15", ignore=shutil.ignore_patterns("judge")))


def test_a_run_from_options_alone_ends_with_figures_and_a_verdict(
    capsys: Capture, judgeless: Path, tiny_model: Path, tmp_path: Path
) -> None:
    clip = f"clip={tiny_model / 'judge/clip'}"
    said = command(
        capsys, "run", "-m", judgeless, "-t", "Van Gogh", "-a", "a painter", "-k", "Claude Monet", "--with", clip,
        *("--set", f"verify.protocol={tmp_path / 'small.yaml'}"),
    )  # fmt: skip
    assert said.code == 3  # random weights prove nothing
    folder = tmp_path / "runs/erase-van-gogh"
    figures = {one["name"] for one in json.loads((folder / "scores.json").read_text(encoding="utf-8"))["figures"]}
    assert {"ua", "ira", "clip"} <= figures
    assert "cra" not in figures  # which a choice among styles does not measure
    assert "FAILED" in said.out or "UA not measured" in said.out
    assert (folder / "report.html").is_file()
    recipe = read_pipeline(folder / "recipe.yaml")
    assert recipe.verify.given == {"clip": str(tiny_model / "judge/clip")}
    assert recipe.generate.steps == 1  # the protocol's own


def test_a_run_without_any_clip_is_refused_in_one_line_before_the_edit(
    capsys: Capture, judgeless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("nothing is here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", absent)
    line = refused(capsys, "run", "-m", judgeless, "-t", "Van Gogh", "-a", "a painter")
    assert "openai/clip-vit-large-patch14" in line
    assert "--with clip=FOLDER" in line
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_holds_another_network_is_no_clip(capsys: Capture, judgeless: Path, tiny_model: Path) -> None:
    given = f"clip={tiny_model / 'judge/style'}"
    assert "expected a CLIP" in refused(capsys, "run", "-m", judgeless, "-t", "Van Gogh", "--with", given)


def test_a_clip_chooses_among_what_a_prompt_set_names_the_task_and_names_of_ours(
    judgeless: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(
        "prompt,seed,style\na cat,0,noto\na cat by Hilma,0,Hilma af Klint\n", encoding="utf-8"
    )
    recipe = tiny_recipe(tmp_path, judgeless)
    recipe["generate"]["prompts"] = str(tmp_path / "rows.csv")
    recipe["verify"] = {"with": {"clip": str(tiny_model / "judge/clip")}}
    judging = run_of(recipe, tmp_path / "place").judging
    assert judging is not None
    cases = make_cases(judging.protocol, judging.task)
    (watcher,) = runner_of(judging.protocol, judging.task, cases, given=judging.given).watchers
    labels = getattr(watcher.detector, "every", ())
    assert {"Hilma af Klint", "noto", "blob", "twemoji", *NEIGHBOURS["style"][:19]} == set(labels)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_protocol_that_asks_for_any_target_of_it(kind: Kind) -> None:
    target = Target("Vincent van Gogh" if kind == "style" else "nudity" if kind == "unsafe" else "cat", kind, "painter")
    task = Task([target])
    protocol = load_protocol(f"any-{kind}")
    cases, rows = make_cases(protocol, task), rows_asked(protocol, task)
    erased = [case for case in cases if case.role == "erased"]
    kept = [case for case in cases if case.role == "kept"]
    assert len(erased) >= 20
    assert len(kept) >= 20
    assert len({case.concept for case in kept}) >= LEAST
    assert not any(task.named_by(case.row.prompt) for case in kept)
    assert any(not row.labels for row in rows)  # what is unrelated


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_twenty_names_none_of_which_is_the_target_or_its_anchor(kind: Kind) -> None:
    ours = NEIGHBOURS[kind]
    assert len(set(ours)) == 20
    task = Task([Target(ours[0], kind, ours[1])], keeps=[f"{kind}:{ours[2]}"])
    assert ours[0] not in beside(task, 20)
    assert ours[1] not in beside(task, 20)
    assert beside(task)[0] == ours[2]
    assert len(choices(task)) == 20
