"""What the attacks' figures are summed up to: a control that is missing is null, never passed."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from erase.models import open_model
from erase.task import Target, Task

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def show() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPTS))
    yield import_module("show_attacks")
    sys.path.remove(str(SCRIPTS))


def side(success: float, control: float = 0.0) -> dict[str, Any]:
    return {"success": success, "control": control, "before": 0.0, "n": 8}


def test_without_a_retrained_model_the_controls_are_not_called_good(show: ModuleType) -> None:
    said = show.summed_up({"tina": {"hidden": side(1.0), "uce": side(1.0)}})
    assert said["controls_ok"] is None
    assert said["negative_rate"] is None
    assert said["broken_by_positive"] == ["tina"]
    assert said["defended_excess"] is None  # no attack by text was made


def test_controls_are_good_only_if_the_first_is_broken_and_the_second_is_not(show: ModuleType) -> None:
    good = {"tina": {"hidden": side(1.0), "retrained": side(0.1)}}
    assert show.summed_up(good)["controls_ok"] is True
    assert show.summed_up({"tina": {"hidden": side(0.2), "retrained": side(0.1)}})["controls_ok"] is False
    assert show.summed_up({"tina": {"hidden": side(1.0), "retrained": side(0.9)}})["controls_ok"] is False


def test_the_excess_is_the_largest_over_attacks_by_text(show: ModuleType) -> None:
    found = {"gcg": {"hardened": side(0.3, 0.2)}, "p4d": {"hardened": side(0.4, 0.1)}, "tina": {"hardened": side(1.0)}}
    assert show.summed_up(found)["defended_excess"] == pytest.approx(0.3)
    found["p4d"]["withstand"] = side(0.6, 0.1)
    assert show.summed_up(found)["defended_excess"] == pytest.approx(0.5)


def test_the_heat_map_has_a_cell_for_each_attack_on_each_edit(show: ModuleType) -> None:
    drawn = show.heat_map(
        {"gcg": {"uce": side(0.25, 0.1)}, "tina": {"uce": side(1.0), "esd": side(0.5)}}, ["uce", "esd"]
    )
    assert drawn.count("<rect") == 1 + 3
    assert ">25 %<" in drawn
    assert ">control 10<" in drawn


def test_an_edit_is_kept_until_its_task_is_another(
    show: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, made = open_model("emoji"), list[Task]()
    make = show.make_edit

    def noted(method: Any, model: Any, task: Task, *, work: Any) -> Any:
        made.append(task)
        return make(method, model, task, work=work)

    monkeypatch.setattr(show, "make_edit", noted)
    asked = Namespace(task="noto", methods=["uce", "none"], quick=False, folder=tmp_path)
    for synonyms in (("google",), ("google",), ("Ícono Noto",)):
        task = Task((Target("noto", "style", anchor="fluent", synonyms=synonyms),))
        monkeypatch.setattr(show, "task_of", lambda name, task=task: task)
        edits = show.edits_of(model, asked)
        assert list(edits) == ["uce", "none"]
        assert edits["none"] is None
    assert [one.targets[0].synonyms for one in made] == [("google",), ("Ícono Noto",)]


def test_another_seed_is_another_search(show: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plans: list[Any] = []
    monkeypatch.setattr(show, "run_attack", lambda *given, plan, **more: plans.append(plan))
    for seed in (0, 3):
        asked = Namespace(task="noto", budget=300, prompts=8, searches=None, steps=10, seed=seed, folder=tmp_path)
        show.attacked(None, None, open_model("emoji"), folder=tmp_path, options=asked)
    assert [plan.seed for plan in plans] == [0, 3]


@pytest.mark.parametrize(("model", "told"), [("emoji", True), ("emoji-flow", False)])
def test_a_retrained_network_is_missed_only_where_there_could_be_one(
    show: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: str,
    told: bool,
) -> None:
    monkeypatch.setattr(show, "edits_of", lambda model, options: {})
    asked = ["--model", model, "--retrained", str(tmp_path / "none"), "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["show_attacks.py", "--attacks", "random_prefix", *asked])
    show.main()
    *said, last = capsys.readouterr().out.splitlines()
    assert any("train_retrained.py makes it" in line for line in said) == told
    assert json.loads(last)["controls_ok"] is None
