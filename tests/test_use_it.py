"""The page on using a result keeps its word: its commands and its Python run in order, and its sizes are right."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from tests.recipes import command
from tests.tiny import tiny_stable_diffusion

PAGE = (Path(__file__).parent.parent / "docs/use-it.md").read_text(encoding="utf-8")
SD1: dict[str, Any] = {"cross_attention_dim": 768}
XL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
}


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text for kind, text in fenced if kind == language]


def test_its_commands_and_its_python_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_stable_diffusion(tmp_path / "models/base")
    lines = [line.partition("#")[0].strip() for block in blocks("") for line in block.splitlines()]
    lines = [line for line in lines if line.startswith("erase ")]
    assert len(lines) == PAGE.count("\nerase ") == 10
    for line in lines:
        said = command(capsys, *shlex.split(line)[1:])
        assert said.code == 0, f"{line}: {said.errors}"
    assert command(capsys, "undo", "edited", "-o", "again").code == 0
    programs = blocks("python")
    assert len(programs) == 2
    for program in programs:
        if "lora" not in program or importlib.util.find_spec("peft") is not None:
            names: dict[str, Any] = {}
            exec(program.replace('style")', 'style", num_inference_steps=2)'), names)
            assert names["image"].size == (16, 16)


@pytest.mark.parametrize(("config", "column"), [(SD1, 1), (XL, 2)])
def test_its_sizes_follow_from_the_models_shapes(config: dict[str, Any], column: int) -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("|")]
    told = {row[0]: row[column] for row in rows if len(row) == 3}
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    shapes = [
        value.shape
        for key, value in unet.state_dict().items()
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    ]
    assert len(shapes) == {1: 32, 2: 140}[column]
    numbers = sum(sum(shape) for shape in shapes)
    patch = 2 * 4 * config["cross_attention_dim"]
    assert told["patch"] == f"{patch:,} bytes"
    assert told["LoRA, float32"] == f"{4 * numbers:,} bytes"
    assert told["LoRA, float16"] == f"{2 * numbers:,} bytes"
    assert told["100 vectors: patch"] == f"{100 * patch / 1e6:.1f} MB"
    assert told["100 vectors: LoRA, float16"] == f"{200 * numbers / 1e6:.1f} MB"
