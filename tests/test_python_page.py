"""The page on Python keeps its word: its code runs in order, without a word of the libraries'."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import erase
from tests.recipes import command

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
PROTOCOL = {
    "version": "1",
    "description": "one prompt for each concept",
    "source": "a test",
    "sampler": {"steps": 2, "batch": 4},
    "detector": [{"name": "judge", "version": "emoji-v1"}],
    "prompts": [
        {"role": "erased", "aspect": "name", "templates": ["a cat in {word} style"], "fill": "names"},
        {"role": "kept", "aspect": "neighbours", "templates": ["a cat in {word} style"], "fill": "keeps"},
    ],
}


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text for kind, text in fenced if kind == language]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_code_runs_and_says_only_what_it_prints(place: Path) -> None:
    programs = blocks("python")
    assert len(programs) == 4
    (place / "small.yaml").write_text(yaml.safe_dump(PROTOCOL), encoding="utf-8")
    code = "\n".join(programs[:3]).replace('protocol="gate"', 'protocol="small.yaml"')
    (place / "page.py").write_text(code, encoding="utf-8")
    ran = subprocess.run([sys.executable, "page.py"], capture_output=True, text=True, encoding="utf-8")
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0] == "StableDiffusion('loaded StableDiffusionPipeline', 20 sites)"
    assert len(lines) == 3
    made = ("noto.safetensors", "erased.png", "noto-lora.safetensors", "edited/unet", "verified/result.json")
    assert [name for name in made if not (place / name).exists()] == []
    assert (place / lines[2]).is_file()


def test_its_method_is_a_plug_in(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "nudge.py").write_text(blocks("python")[3], encoding="utf-8")
    lines = [line for block in blocks("") for line in block.splitlines()]
    assert len(lines) == 2
    for line in lines:
        said = command(capsys, *shlex.split(line)[1:])
        assert said.code == 0, f"{line}: {said.errors}"
    assert "share  number  default 1.0" in said.out
    model = erase.open_model("emoji")
    made = erase.edit(model, erase.Task(["noto"]), method="./nudge.py", share=0.5)
    assert made.content == erase.Edit.load("nudged.safetensors").content


def test_its_entry_point_is_of_a_group_that_is_looked_for() -> None:
    from erase import registry

    (text,) = blocks("toml")
    (kind,) = re.findall(r'entry-points\."erase\.(\w+)"', text)
    assert kind in registry._OPEN
