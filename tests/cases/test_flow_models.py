"""Stable Diffusion 3 and FLUX.1 from the command line: edited, drawn, judged, verified and exported like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from erase.edit import Edit
from erase.models import Model
from erase.run.store import SIDES
from tests.evaluate.pictures import read_pixels
from tests.families import Opener
from tests.recipes import command

Capture = pytest.CaptureFixture[str]
SMALL = """\
version: "1"
description: few prompts
source: a test
sampler: {steps: 2, guidance: 3.0, batch: 4, size: 16}
detector: {name: clip_zero_shot, version: local}
prompts:
  - {role: erased, aspect: name, fill: names, templates: ["a cat in {word} style"], seeds: [0, 1]}
  - role: kept
    aspect: others
    fill: related
    related: {noto: [firefox]}
    templates: ["a cat in {word} style"]
"""


@pytest.fixture(params=["stable-diffusion-3", "flux"])
def flow(
    request: pytest.FixtureRequest, family_model: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Model:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return family_model(request.param)


def test_a_run_verifies_and_generates_on_a_flow_model(
    capsys: Capture, flow: Model, tiny_model: Path, tmp_path: Path
) -> None:
    clip = f"clip={tiny_model / 'judge/clip'}"
    said = command(
        capsys, "run", "-m", flow.path, "-t", "noto", "-a", "blob", "-k", "style:firefox", "--with", clip,
        *("--set", f"verify.protocol={tmp_path / 'small.yaml'}"),
    )  # fmt: skip
    assert said.code == 3, said.errors  # random weights prove nothing
    folder = tmp_path / "runs/erase-noto"
    before, after = ([read_pixels(path) for path in sorted((folder / side).glob("*.png"))] for side in SIDES)
    assert len(before) == len(after) > 2
    for one in before:
        assert one is not None
        assert one.shape == (3, 16, 16)
        assert not any(torch.equal(one, other) for other in after if other is not None)
    edit = Edit.load(folder / "edit.safetensors")
    assert {site.reads for site in flow.sites() if site.name in edit.touches} == {"tokens", "pooled"}
    said = command(
        capsys, "verify", folder / "model", "-m", flow.path, "--protocol", tmp_path / "small.yaml", "--with", clip,
        "--out", tmp_path / "verified",
    )  # fmt: skip
    assert said.code == 3, said.errors
    values = json.loads((tmp_path / "verified/result.json").read_text(encoding="utf-8"))
    assert values["sampler"]["size"] == 16
    assert len(values["images"]) == len(before) + len(after)
