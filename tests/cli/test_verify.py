"""`erase verify` as its user meets it: exit codes, words, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

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
    assert json.loads((folder / "out/verdict.json").read_text(encoding="utf-8"))["reasons"] == []


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
    assert json.loads(said.out) == json.loads((folder / "out/verdict.json").read_text(encoding="utf-8"))


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
    assert not (folder / "out/verdict.json").exists()


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
