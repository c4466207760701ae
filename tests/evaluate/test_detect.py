"""Detectors by name: their options, what a user has to give, and what a protocol may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from erase.errors import BadProtocol, ScoreFailed
from erase.evaluate.detect import Given, Look, build_detector, look
from erase.evaluate.detections import Finding
from erase.evaluate.detectors.callable import Callable
from erase.evaluate.detectors.clip_zero_shot import ClipZeroShot
from erase.evaluate.detectors.judge import Judge
from erase.evaluate.protocol import DetectorForm, load_protocol
from erase.evaluate.questions import make_cases
from erase.task import Target, Task

UNSAFE = Task((Target("bomb", "unsafe"), Target("knife", "unsafe")))


def form(name: str = "judge", version: str = "emoji-v1", **changes: Any) -> DetectorForm:
    return DetectorForm(name=name, version=version, **changes)


def test_the_judge_comes_with_the_base_model(tmp_path: Path) -> None:
    assert build_detector(form(), (), Given(judge=tmp_path)) == Judge(tmp_path)


def test_a_given_path_goes_before_the_base_model_s(tmp_path: Path) -> None:
    found = build_detector(form(), (), Given({"judge": tmp_path / "other"}, tmp_path))
    assert found == Judge(tmp_path / "other")


def test_clip_is_told_the_labels_that_are_asked_for(tmp_path: Path) -> None:
    asked = form("clip_zero_shot", "local", options={"template": "{}", "others": ["tree"]})
    found = build_detector(asked, ("cat", "dog"), Given(judge=tmp_path))
    assert found == ClipZeroShot(tmp_path / "clip", ("cat", "dog"), "{}", ("tree",))


def test_what_is_lacking_is_said_by_name() -> None:
    with pytest.raises(ScoreFailed, match="give it as classifier=PATH"):
        build_detector(form("classifier", "local"), (), Given())


def test_q16_needs_two_paths(tmp_path: Path) -> None:
    with pytest.raises(ScoreFailed, match="give it as q16-prompts=PATH"):
        build_detector(form("q16", "clip-vit-large-patch14"), (), Given({"q16": tmp_path}))


def test_an_option_that_a_detector_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadProtocol, match='did you mean "template"'):
        build_detector(form("clip_zero_shot", "local", options={"templat": "{}"}), (), Given(judge=tmp_path))


def test_a_protocol_names_no_file_to_read_or_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit", encoding="utf-8")
    asked = form("callable", "local", options={"weights": str(tmp_path / "evil.py")})
    with pytest.raises(BadProtocol, match="is a path, which no protocol gives"):
        build_detector(asked, (), Given())
    given = Given({"callable": tmp_path / "mine.py"})
    assert build_detector(form("callable", "local"), (), given) == Callable(tmp_path / "mine.py")


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadProtocol, match="asks for judge emoji-v0; this is version emoji-v1"):
        build_detector(form(version="emoji-v0"), (), Given(judge=tmp_path))


def looks(folder: Path, protocol: dict[str, Any], answer: list[Finding], task: Task = UNSAFE) -> list[Look]:
    head = {"version": "1", "description": "a test", "source": "a test"}
    (folder / "mine.yaml").write_text(yaml.safe_dump(head | protocol), encoding="utf-8")
    chosen = load_protocol(str(folder / "mine.yaml"))
    cases = make_cases(chosen, task)
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    images = {(case.row.prompt, case.row.seed): folder / "one.png" for case in cases}
    names = [one.name for one in (*chosen.form.detector, *chosen.form.keeper)]
    fakes = {name: lambda pictures: [answer for _ in pictures] for name in names}
    return look(chosen, task, cases, images=images, given=Given(detectors=fakes))


ERASED = {"role": "erased", "aspect": "name", "templates": ["a {word}"]}


def test_one_target_in_another_s_place_is_still_a_target(tmp_path: Path) -> None:
    protocol = {"detector": {"name": "judge", "version": "emoji-v1"}, "prompts": [ERASED]}
    assert looks(tmp_path, protocol, [Finding("knife", 0.9, "object")]) == [Look(True, 1, 0.9)] * 2
    assert looks(tmp_path, protocol, [Finding("apple", 0.9, "object")]) == [Look(False, 0, 0.0)] * 2


def test_any_of_several_detectors_may_fire_and_boxes_are_added(tmp_path: Path) -> None:
    several = [
        {"name": "q16", "version": "clip-vit-large-patch14", "labels": ["inappropriate"], "threshold": 0.5},
        {"name": "nudenet", "version": "3.4.2", "labels": ["FEET_EXPOSED"], "threshold": 0.6, "unit": "box"},
    ]
    answer = [Finding("FEET_EXPOSED", 0.7), Finding("FEET_EXPOSED", 0.8), Finding("inappropriate", 0.2)]
    protocol = {"detector": several, "prompts": [ERASED]}
    # each fake gives all findings, of which each policy counts its own
    assert looks(tmp_path, protocol, answer) == [Look(True, 2, 0.8)] * 2


def test_the_keeper_looks_at_what_must_stay(tmp_path: Path) -> None:
    kept = {
        "role": "kept",
        "aspect": "rest",
        "templates": ["a {object}"],
        "axes": {"object": ["tree"]},
        "see": "prompt",
    }
    protocol = {
        "detector": {"name": "open_nsfw", "version": "open_nsfw-1", "labels": ["nsfw"], "threshold": 0.5},
        "keeper": {"name": "clip_zero_shot", "version": "local"},
        "prompts": [ERASED, kept],
    }
    found = looks(tmp_path, protocol, [Finding("a tree", 0.4), Finding("nsfw", 0.3)])
    assert found == [*[Look(False, 0, 0.3)] * 2, *[Look(True, 1, 0.4)] * 2]
