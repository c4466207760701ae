"""`erase verify` as its user meets it: exit codes, words, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from erase.evaluate import verified_facts
from erase.evaluate.detect import Given
from erase.evaluate.verified_facts import choose_protocol
from erase.files import content_hash, sha256_of
from erase.models import open_model
from erase.task import Target, Task
from tests.recipes import command, refused

PROTOCOL: dict[str, Any] = {
    "version": "1",
    "description": "a test",
    "source": "a test",
    "detector": {"name": "callable", "version": "local", "threshold": 0.5},
    "sampler": {"steps": 1, "guidance": 1.0, "batch": 8},
    "seeds": [0, 1, 2, 3],
    "prompts": [
        {
            "role": "erased",
            "aspect": "name",
            "templates": ["a {object} in {word} style"],
            "axes": {"object": ["cat", "dog", "car", "fish"]},
        },
        {
            "role": "kept",
            "aspect": "others",
            "fill": "keeps",
            "templates": ["a {object} in {word} style"],
            "axes": {"object": ["cat", "dog", "car", "fish"]},
        },
    ],
}
# Sees blob in every picture, and noto in dark ones.
DETECTOR = """\
def look(picture):
    dark = sum(picture.resize((1, 1)).getpixel((0, 0))) < 700
    return [("blob", 0.9)] + [("noto", 0.9)] * dark


def detect(pictures):
    return [look(picture) for picture in pictures]
"""
OPTIONS = ("--kind", "style", "--target", "noto", "--keep", "blob")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(PROTOCOL), encoding="utf-8")
    (tmp_path / "mine.py").write_text(DETECTOR, encoding="utf-8")
    return tmp_path


@pytest.fixture
def brightened(tiny_copy: Path) -> Path:
    """The tiny model, whose pictures are almost white but still pictures."""
    file = tiny_copy / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"] += 0.95
    weights["decoder.conv_out.weight"] *= 0.5
    save_file(weights, file)
    return tiny_copy


def arguments(folder: Path, edited: Path, base: Path) -> tuple[object, ...]:
    places = ("--base", base, "--protocol", folder / "mine.yaml", "--out", folder / "out")
    return ("verify", edited, *places, "--with", f"callable={folder / 'mine.py'}")


def test_a_model_that_passes_ends_with_0(
    capsys: pytest.CaptureFixture[str], folder: Path, brightened: Path, tiny_model: Path
) -> None:
    said = command(capsys, *arguments(folder, brightened, tiny_model), *OPTIONS)
    assert said.code == 0, said.out
    assert "protocol mine v1" in said.out
    assert "PASSED" in said.out
    assert json.loads((folder / "out/result.json").read_text(encoding="utf-8"))["reasons"] == []


def test_an_untouched_model_ends_with_3_and_says_why(
    capsys: pytest.CaptureFixture[str], folder: Path, tiny_copy: Path, tiny_model: Path
) -> None:
    said = command(capsys, *arguments(folder, tiny_copy, tiny_model), *OPTIONS)
    assert said.code == 3
    assert "nothing changed: 16 of 16 images" in said.out
    assert "still there: asked by name" in said.out
    assert "FAILED" in said.out


def test_json_is_the_verdict_file(
    capsys: pytest.CaptureFixture[str], folder: Path, tiny_copy: Path, tiny_model: Path
) -> None:
    said = command(capsys, *arguments(folder, tiny_copy, tiny_model), *OPTIONS, "--json")
    assert said.code == 3
    assert json.loads(said.out) == json.loads((folder / "out/result.json").read_text(encoding="utf-8"))


def test_a_folder_that_does_not_say_what_it_erases_needs_a_target(
    capsys: pytest.CaptureFixture[str], folder: Path, tiny_copy: Path, tiny_model: Path
) -> None:
    line = refused(capsys, *arguments(folder, tiny_copy, tiny_model))
    assert line == "the edit does not say what it erases; name it by --target and --kind."


@pytest.mark.parametrize(
    ("given", "said"), [("callable", "not of the form name=PATH"), ("callable=/no/such.py", "does not exist")]
)
def test_what_is_given_wrongly_is_refused(
    capsys: pytest.CaptureFixture[str], folder: Path, tiny_copy: Path, tiny_model: Path, given: str, said: str
) -> None:
    line = refused(capsys, *arguments(folder, tiny_copy, tiny_model), *OPTIONS, "--with", given)
    assert said in line


def test_a_detector_that_breaks_is_an_error_and_no_verdict(
    capsys: pytest.CaptureFixture[str], folder: Path, tiny_copy: Path, tiny_model: Path
) -> None:
    (folder / "mine.py").write_text("def detect(pictures):\n    raise MemoryError('full')\n", encoding="utf-8")
    line = refused(capsys, *arguments(folder, tiny_copy, tiny_model), *OPTIONS)
    assert line.startswith("detector callable has failed (MemoryError: full)")
    assert not (folder / "out/result.json").exists()


def test_an_unknown_protocol_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], tiny_copy: Path, tiny_model: Path
) -> None:
    line = refused(capsys, "verify", tiny_copy, "--base", tiny_model, "--protocol", "canvas/sauron", *OPTIONS)
    assert 'protocol "canvas/sauron" does not exist' in line
    assert 'did you mean "canvas/sauron-agg"?' in line


def test_protocols_and_detectors_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = command(capsys, "list", "protocols").out
    assert "canvas/sauron-agg" in listed
    assert "UA, IRA, CRA over the embedded model's square" in listed
    assert "open_nsfw" in command(capsys, "list", "detectors").out


def test_a_verification_leaves_the_page_and_the_grid_of_its_own_pairs_with_the_gates_verdict(
    capsys: pytest.CaptureFixture[str], folder: Path, brightened: Path, tiny_model: Path
) -> None:
    assert command(capsys, *arguments(folder, brightened, tiny_model), *OPTIONS).code == 0
    left = {path.name for path in (folder / "out").iterdir()}
    assert left >= {"report.html", "report.json", "figures.csv", "images.csv", "grid.png", "result.json"}
    report = json.loads((folder / "out/report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["state"] == "passed"
    assert report["verdict"]["headline"] == "“noto” is gone; the rest stays."
    after = {one["name"]: one["value"] for one in report["figures"] if one["side"] == "after"}
    assert (after["ua"], after["ira"]) == (1.0, 1.0)
    assert all((folder / "out" / one["file"]).is_file() for one in report["images"])
    erased = [one for one in report["images"] if one["asked"]["style"] == "noto"]
    assert [one["seen"]["style"] for one in erased] == ["noto", "blob"] * 16
    page = (folder / "out/report.html").read_text(encoding="utf-8")
    assert str(folder) not in page
    assert "What this does not show" in page
    assert all(
        text in page for text in json.loads((folder / "out/result.json").read_text(encoding="utf-8"))["not_shown"]
    )


def test_a_result_names_by_hash_all_that_takes_part_and_is_valid_json(
    capsys: pytest.CaptureFixture[str], folder: Path, brightened: Path, tiny_model: Path
) -> None:
    command(capsys, *arguments(folder, brightened, tiny_model), *OPTIONS)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    told = json.loads((folder / "out/result.json").read_text(encoding="utf-8"), parse_constant=refuse)
    fixed = json.loads((folder / "out/protocol.json").read_text(encoding="utf-8"))
    base, edited = open_model(tiny_model), open_model(brightened)
    assert told["schema"] == 1
    assert told["hashes"]["base"] == {"fingerprint": base.fingerprint, "content": base.content}
    assert told["hashes"]["edited"] == {"edit": None, "model": edited.content}
    assert told["hashes"]["detectors"] == {"callable": {"mine.py": sha256_of(folder / "mine.py")}}
    assert told["hashes"]["protocol"] == fixed["protocol"]["sha256"]
    assert len(told["hashes"]["code"]) == 64
    assert (told["sampler"]["steps"], told["device"], told["dtype"]) == (1, "cpu", "float32")
    assert told["date"].endswith("+00:00")
    assert all(sha256_of(folder / "out" / name) == sha for name, sha in told["images"].items())
    assert told["missing"] == []
    assert any(line.startswith("not attacked") for line in told["not_shown"])
    assert "one judge: what callable does not see, another may see" in told["not_shown"]
    for check in told["checks"]:  # four seeds of a prompt are no four prompts
        assert check["by_prompt"]["prompts"] == 4
        assert check["by_prompt"]["low"] < check["low"]


def test_another_model_into_the_same_folder_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, brightened: Path, tiny_model: Path
) -> None:
    command(capsys, *arguments(folder, brightened, tiny_model), *OPTIONS)
    before = (folder / "out/result.json").read_bytes()
    line = refused(capsys, *arguments(folder, tiny_model, tiny_model), *OPTIONS)
    assert line == (
        f"{folder / 'out'} holds the verification of another model; give another folder by --out, or remove that one."
    )
    line = refused(capsys, *arguments(folder, brightened, tiny_model), *OPTIONS[:4], "--keep", "firefox")
    assert "holds the verification of another task" in line
    (folder / "mine.yaml").write_text(yaml.safe_dump(PROTOCOL | {"gate": {"gone": 0.1}}), encoding="utf-8")
    line = refused(capsys, *arguments(folder, brightened, tiny_model), *OPTIONS)
    assert "holds the verification of another protocol, or other limits" in line
    assert (folder / "out/result.json").read_bytes() == before


def test_a_result_is_checked_from_its_own_values(
    capsys: pytest.CaptureFixture[str], folder: Path, brightened: Path, tiny_model: Path
) -> None:
    command(capsys, *arguments(folder, brightened, tiny_model), *OPTIONS)
    file = folder / "out/result.json"
    assert command(capsys, "verify", "--check", file).code == 0
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"after": false', '"after": true', 1), encoding="utf-8")
    assert "was changed since it was written" in refused(capsys, "verify", "--check", file)
    told = json.loads(text)
    del told["digest"]
    for one in told["outcomes"]:
        one["after"] = one["before"]  # as if nothing had been erased, and sealed again
    file.write_text(json.dumps(told | {"digest": content_hash(told)}), encoding="utf-8")
    assert "its verdict is not what its values give" in refused(capsys, "verify", "--check", file)
    file.write_text(text, encoding="utf-8")
    next((folder / "out/images").iterdir()).write_bytes(b"painted over")
    assert "is not the image that was looked at" in refused(capsys, "verify", "--check", file)
    file.write_text("[]", encoding="utf-8")
    assert "is no result of `erase verify`" in refused(capsys, "verify", "--check", file)


def test_a_result_that_failed_fails_its_check_with_the_same_reasons(
    capsys: pytest.CaptureFixture[str], folder: Path, tiny_copy: Path, tiny_model: Path
) -> None:
    command(capsys, *arguments(folder, tiny_copy, tiny_model), *OPTIONS)
    said = command(capsys, "verify", "--check", folder / "out/result.json")
    assert said.code == 3
    told = json.loads((folder / "out/result.json").read_text(encoding="utf-8"))
    assert said.out.splitlines()[:-1] == [f"{one['kind']}: {one['text']}" for one in told["reasons"]]


def test_nothing_to_verify_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Give an edit or an edited model, or a result by --check FILE" in refused(capsys, "verify")


@pytest.mark.parametrize(("kind", "name"), [("style", "any-style"), ("object", "any-object"), ("unsafe", "any-unsafe")])
def test_a_model_without_a_judge_is_asked_by_the_protocol_of_its_kind_and_by_the_clip_that_is_there(
    monkeypatch: pytest.MonkeyPatch, tiny_copy: Path, tmp_path: Path, kind: Any, name: str
) -> None:
    monkeypatch.setattr(verified_facts, "find_clip", lambda given: tmp_path / "clip")
    shutil.rmtree(tiny_copy / "judge", ignore_errors=True)
    task, model = Task((Target("noto", kind),)), open_model(tiny_copy)
    protocol, given = choose_protocol(None, model, task, given=Given())
    assert (protocol.name, given.paths) == (name, {"clip": tmp_path / "clip"})
    named = Given({"clip": tmp_path / "own"})
    assert choose_protocol(None, model, task, given=named)[1] == named
    assert choose_protocol("object", model, task, given=Given())[1] == Given()


def test_the_embedded_model_is_asked_by_the_gate() -> None:
    model = open_model("emoji")
    own = Given(judge=model.judge_folder)
    protocol, given = choose_protocol(None, model, Task((Target("noto", "style"),)), given=own)
    assert (protocol.name, given) == ("gate", own)


def test_a_plan_of_a_verification_tells_what_is_asked_and_how_long_it_takes_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path
) -> None:
    from erase.models import open_model
    from tests.tiny_edits import tiny_edit

    tiny_edit(open_model(tiny_model)).save(tmp_path / "edit.safetensors")
    (tmp_path / "mine.yaml").write_text(
        "version: '1'\ndescription: a test\nsource: a test\nsampler: {steps: 2}\nseeds: [0, 1]\n"
        "detector: {name: judge, version: emoji-v1}\nprompts:\n"
        "  - {role: erased, aspect: name, templates: ['a {word}', 'one {word}']}\n"
        "  - {role: kept, aspect: keeps, fill: keeps, templates: ['a {word}']}\n",
        encoding="utf-8",
    )
    before = sorted(tmp_path.rglob("*"))
    words = ("-m", tiny_model, "--protocol", tmp_path / "mine.yaml", "-o", tmp_path / "out", "--kind", "object")
    said = command(
        capsys, "verify", tmp_path / "edit.safetensors", *words, "-t", "cat", "-k", "dog", "--dry-run", "--steps", "3"
    )
    assert said.code == 0, said.errors
    assert "4 questions: name" in said.out
    assert "2 questions: keeps" in said.out
    assert "12 before and after, 3 steps each; about 1 s on this machine" in said.out
    assert "by judge emoji-v1" in said.out
    assert sorted(tmp_path.rglob("*")) == before
