"""What a run leaves as its result: the same as `erase verify`, recomputed by `--check`, with what was fixed first."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from erase.config.prompts import Row
from erase.evaluate.detect import look
from erase.evaluate.detections import Finding
from erase.evaluate.gate import Limits
from erase.evaluate.protocol import Case, DetectorForm, PartForm, Protocol, ProtocolForm
from erase.evaluate.result import SCHEMA, code_hash, read_result
from erase.files import sha256_of
from erase.run.judging import protocol_of
from erase.run.pipeline import GateForm, load_pipeline, resolve
from erase.run.store import Run
from erase.task import Target, Task
from tests.finished import run_of
from tests.recipes import command, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]
Seen = dict[str, str]


def test_a_run_leaves_a_result_that_names_all_it_rests_on(finished: Run) -> None:
    told = read_result(finished.result_file)
    fixed = json.loads((finished.folder / "protocol.json").read_text(encoding="utf-8"))
    assert told["schema"] == SCHEMA
    assert told["hashes"]["base"] == {"fingerprint": finished.model.fingerprint, "content": finished.model.content}
    assert told["hashes"]["edited"]["edit"] == told["edit"]["content"]
    assert told["hashes"]["files"] == {"edit.safetensors": sha256_of(finished.edit_file)}
    assert set(told["hashes"]["detectors"]) == {"judge", "scorer clip"}
    assert told["hashes"]["protocol"] == fixed["protocol"]["sha256"]
    assert told["hashes"]["code"] == code_hash()
    assert told["limits"] == fixed["protocol"]["limits"]
    assert told["fixed"] == sha256_of(finished.folder / "protocol.json")
    assert fixed["date"] <= told["date"]
    assert told["images"] == {
        path.relative_to(finished.folder).as_posix(): sha for path, sha in finished.planned_images().items()
    }
    assert told["sampler"]["steps"] == 2
    assert any(line.startswith("not attacked") for line in told["not_shown"])


def test_every_row_is_asked_for_the_target_its_kind_and_the_other_domain(finished: Run) -> None:
    asked = {(one["prompt"], one["role"], one["aspect"]) for one in read_result(finished.result_file)["outcomes"]}
    assert ("a cat in noto style", "erased", "its own prompts") in asked
    assert ("a cat in blob style", "kept", "the others of its kind") in asked
    assert {("a cat in noto style", "kept", "the objects"), ("a picture of a cat", "kept", "the objects")} <= asked
    assert len(asked) == len(read_result(finished.result_file)["outcomes"])


def test_check_recomputes_a_runs_verdict_by_folder_file_or_name(
    capsys: Capture, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(tmp_path, tiny_model) | {"gate": {}, "export": [], "grid": None}
    ran = command(capsys, "run", write_recipe(tmp_path, recipe), "--json", "--quiet")
    assert ran.code == 3
    told = json.loads(ran.out)
    assert told["verdict"] == "failed"
    assert told["exit_code"] == 3
    assert told["reasons"]
    assert told["results"]["result"] == "runs/mine/result.json"
    for where in ("runs/mine", "runs/mine/result.json", "mine"):
        said = command(capsys, "verify", "--check", where)
        assert said.code == 3
        assert "FAILED" in said.out
        assert told["reasons"][0]["text"] in said.out
    image = sorted(Path("runs/mine/after").iterdir())[0]
    image.write_bytes(image.read_bytes() + b"painted")
    assert "is not the image that was looked at" in command(capsys, "verify", "--check", "mine").errors


@pytest.mark.parametrize(
    ("gate", "gone", "kin", "objects"),
    [(GateForm(), 0.8, None, None), (GateForm(ua=0.7, ira=0.6, cra=0.5), 0.7, 0.6, 0.5), (None, 0.8, None, None)],
)
def test_the_gates_bounds_are_the_limits_of_what_they_ask(
    finished: Run, gate: GateForm | None, gone: float, kin: float | None, objects: float | None
) -> None:
    recipe = finished.recipe.model_copy(update={"gate": gate})
    limits = protocol_of(recipe, finished.task, by_clip=False).limits
    assert limits.gone == gone
    assert limits.kept_of("the others of its kind") == (Limits().kept if kin is None else kin)
    assert limits.kept_of("the objects") == (Limits().kept if objects is None else objects)


def test_a_protocols_own_prompts_take_the_gates_bounds_by_what_they_ask(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "name": "mine",
        "model": "emoji",
        "task": {"kind": "style", "targets": [{"name": "noto", "anchor": "fluent"}]},
        "gate": {"ira": 0.7, "cra": 0.6},
    }
    pipeline = resolve(load_pipeline(str(write_recipe(tmp_path, recipe))))
    limits = protocol_of(pipeline, pipeline.make_task(), by_clip=False).limits
    assert limits.by_aspect == {"others": 0.7, "unrelated": 0.6}


def test_a_run_is_read_as_its_protocol_says_after_reading_the_protocol_back(finished: Run) -> None:
    form = json.loads((finished.folder / "protocol.json").read_text(encoding="utf-8"))["form"]
    told = read_result(finished.result_file)
    assert Protocol("again", ProtocolForm(**form)).sha256 == told["hashes"]["protocol"]


def test_an_overlap_of_two_selections_is_asked_once(tmp_path: Path, tiny_model: Path) -> None:
    recipe = tiny_recipe(tmp_path, tiny_model)
    square = recipe["generate"]["prompts"]
    recipe["generate"] = recipe["generate"] | {"prompts": [square, {"name": square, "where": {"style": ["noto"]}}]}
    run = run_of(recipe, tmp_path / "place")
    judging = run.judging
    assert judging is not None
    from erase.evaluate.questions import make_cases

    cases = make_cases(judging.protocol, run.task)
    keys = [(case.row.prompt, case.row.seed, case.role, case.aspect) for case in cases]
    assert len(keys) == len(set(keys))


def found(label: str, task: Task, labels: Seen) -> bool | None:
    """Whether a detector that sees `label` everywhere is taken to see the target of a task."""
    from erase.evaluate.detect import Given

    def detect(pictures: Any) -> list[list[Finding]]:
        return [[Finding(word, 0.9, kind) for kind, word in labels.items()] for _ in pictures]

    part = PartForm(role="erased", aspect="name", templates=("{word}",))
    form = ProtocolForm(
        version="1", description="", source="", prompts=(part,), detector=(DetectorForm(name="judge", version="x"),)
    )
    case = Case(Row("a prompt", 0, {}), "erased", "name", label, "style")
    image = Path(__file__).parents[2] / "docs/grid.png"
    given = Given(detectors={"judge": detect})
    (one,) = look(Protocol("p", form), task, [case], images={("a prompt", 0): image}, given=given)
    return one.seen


def test_a_target_is_seen_under_a_synonym_and_whatever_its_letter_case() -> None:
    task = Task([Target("Noto", "style", synonyms=("google",))])
    assert found("Noto", task, {"style": "noto"})
    assert found("Noto", task, {"style": "Google"})
    assert not found("Noto", task, {"style": "blob"})


def test_a_pair_is_seen_only_where_both_of_its_labels_are() -> None:
    task = Task([Target("noto cat", "style", pair={"style": "noto", "object": "cat"})])
    assert found("noto cat", task, {"style": "noto", "object": "cat"})
    assert not found("noto cat", task, {"style": "noto", "object": "dog"})
    assert not found("noto cat", task, {"style": "blob", "object": "cat"})


def test_limits_of_one_aspect_are_part_of_a_protocols_hash() -> None:
    from erase.evaluate.protocol import load_protocol

    plain = load_protocol("gate")
    gate = plain.form.gate.model_copy(update={"by_aspect": {"others": 0.5}})
    other = Protocol("gate", plain.form.model_copy(update={"gate": gate}))
    assert other.sha256 != plain.sha256
    assert asdict(other.limits)["by_aspect"] == {"others": 0.5}


def test_what_was_fixed_when_images_were_there_is_told_so(run: Run) -> None:
    from dataclasses import replace

    from erase.run import steps
    from erase.run.judging import LATE
    from tests.finished import Seen as Watch

    assert LATE not in read_result(run.result_file)["not_shown"]
    gate = run.recipe.model_copy(update={"gate": GateForm(ua=0.1)})
    steps.do("score", replace(run, recipe=gate), Watch())
    assert LATE in read_result(run.result_file)["not_shown"]
    assert read_result(run.result_file)["limits"]["gone"] == 0.1
    steps.do("score", replace(run, recipe=gate), Watch())  # nor is it forgotten
    assert LATE in read_result(run.result_file)["not_shown"]


def test_a_finished_run_of_an_earlier_version_is_judged_anew_and_no_image_made(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    from erase.run import steps
    from tests.finished import Seen as Watch

    run.result_file.unlink()
    run.fixed_file.unlink()
    watch = Watch()
    assert steps.do_all(run, watch)
    assert watch.begun[0] == "score"
    assert watch.counts == []
    assert "is of an earlier version: its images are judged anew" in caplog.text
    run.read_result()
    assert not steps.do_all(run, Watch())


def test_a_bound_that_nothing_measures_is_a_reason_against_the_run(
    recipe: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    from erase.run import steps
    from tests.finished import Seen as Watch

    by_clip = {"verify": {"with": {"clip": str(tiny_model / "judge/clip")}}, "gate": {"cra": 0.7}, "export": []}
    run = run_of(recipe | by_clip, tmp_path / "place")
    steps.do_all(run, Watch())
    assert "CRA is not measured, at least 70% is asked" in [reason.text for reason in run.read_result().reasons]
