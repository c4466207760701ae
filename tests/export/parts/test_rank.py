"""A LoRA has no higher rank than its prompts need, says what that loses, and tells it from cutting and rounding."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.edit import Edit, EditInfo
from erase.errors import BadOption
from erase.export.lora import lora, summary
from erase.methods.redirect import Redirect
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.task import Target, Task
from tests.export.test_lora import CONVOLUTION, dense, made
from tests.recipes import command

PROMPTS = ("noto", "blob icon", "twemoji", "a cat in fluent style")


def task() -> Task:
    return Task((Target("noto", "style", "blob"),))


@pytest.fixture(scope="module")
def emoji() -> Model:
    return open_model("emoji")


@pytest.fixture(scope="module")
def edit(emoji: Model) -> Edit:
    return Redirect()(emoji, task())


def told(file: Path) -> dict[str, object]:
    with safe_open(file, framework="pt") as opened:
        said: dict[str, object] = json.loads(opened.metadata()["erase.lora"])
    return said


def worst(model: Model, edit: Edit, file: Path, prompts: list[str]) -> float:
    """The largest change of what a layer puts out for a token, relative to that of the edited layer, in float64."""
    tensors, states = load_file(file), model.encode(prompts).states.flatten(0, 1).double()
    found = 0.0
    for site in model.sites():
        key = "lora_unet_" + site.key.removesuffix(".weight").replace(".", "_")
        added = tensors[f"{key}.lora_up.weight"].double() @ tensors[f"{key}.lora_down.weight"].double()
        weight = model.weight(site.name).double()
        matrix = torch.eye(weight.shape[1], dtype=torch.float64)
        for text_map in edit.text_maps:
            matrix = matrix + text_map.up.double() @ text_map.down.double()
        exact: Tensor = weight @ matrix @ states.T
        found = max(found, float(((weight + added) @ states.T - exact).norm(dim=0).div(exact.norm(dim=0)).max()))
    return found


def test_the_default_keeps_the_layers_outputs_to_a_thousandth_at_a_fraction_of_the_rank(
    emoji: Model, edit: Edit, tmp_path: Path
) -> None:
    file, exact = lora(emoji, edit, tmp_path / "lora"), lora(emoji, edit, tmp_path / "exact", loss=0.0)
    said = told(file)
    assert said["rank"] == len(next(value for key, value in load_file(file).items() if "lora_down" in key))
    assert int(str(said["rank"])) <= edit.rank / 3
    assert worst(emoji, edit, file, ["noto"]) <= 1.001e-3
    assert said["lost"] == pytest.approx(worst(emoji, edit, file, ["noto"]), rel=1e-3)
    assert told(exact)["rank"] == edit.rank
    assert worst(emoji, edit, exact, list(PROMPTS)) < 1e-6


def test_prompts_that_it_was_not_measured_on_lose_no_more_than_some_thousandths(
    emoji: Model, edit: Edit, tmp_path: Path
) -> None:
    file = lora(emoji, edit, tmp_path / "lora")
    assert worst(emoji, edit, file, ["a rose in noto style", "two dogs drawn by noto", "a car", ""]) < 1e-2


def test_a_larger_loss_is_a_smaller_file_and_one_direction_less_would_lose_more(
    emoji: Model, edit: Edit, tmp_path: Path
) -> None:
    files = {loss: lora(emoji, edit, tmp_path / f"{loss}", loss=loss) for loss in (1e-1, 1e-2, 1e-3)}
    ranks = [int(str(told(file)["rank"])) for file in files.values()]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 3
    assert all(worst(emoji, edit, file, ["noto"]) <= 1.001 * loss for loss, file in files.items())
    shorter = load_file(files[1e-2])
    for key in [key for key in shorter if "lora_down" in key]:
        shorter[key] = torch.cat([shorter[key][:-1], torch.zeros_like(shorter[key][-1:])])
    save_file(shorter, tmp_path / "shorter.safetensors")
    assert worst(emoji, edit, tmp_path / "shorter.safetensors", ["noto"]) > 1e-2


def test_a_small_strength_keeps_its_share_of_the_change(emoji: Model, edit: Edit, tmp_path: Path) -> None:
    ranks = [told(lora(emoji, edit.scaled(s), tmp_path / f"{s}"))["rank"] for s in (1e-4, 1e-6)]
    assert min(int(str(rank)) for rank in ranks) > 3


def test_keeps_and_synonyms_and_parts_of_a_sum_are_looked_at(emoji: Model, tmp_path: Path) -> None:
    whole = UCE()(emoji, Task((Target("noto", "style", "blob", synonyms=("google",), prompts=("a {} icon",)),)))
    assert "2 prompts" in summary(lora(emoji, whole, tmp_path / "one"))
    both = whole + UCE()(emoji, task())
    assert "3 prompts" in summary(lora(emoji, both, tmp_path / "two"))


def test_rounding_is_not_called_a_cut(
    emoji: Model, edit: Edit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lora(emoji, edit, tmp_path / "half", dtype="bfloat16")
    assert "rounding to bfloat16 loses at most" in caplog.text
    assert "cut" not in caplog.text


def test_a_cut_is_not_called_rounding(model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        lora(model, made(model, deltas=dense(model, CONVOLUTION)), tmp_path / "lora", rank=4)
    assert "1 changes are not of low rank and were cut" in caplog.text
    assert "rounding" not in caplog.text


def test_without_prompts_the_change_itself_is_measured_and_it_is_said(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = made(model, rank=20)
    info = EditInfo("test", {}, {}, model.family, model.fingerprint)
    with caplog.at_level(logging.WARNING):
        file = lora(model, Edit(info, plain.text_maps), tmp_path / "lora", loss=0.2)
    assert "measured on the changes themselves, for the edit names no prompt" in caplog.text
    losses = json.loads(json.dumps(told(file)["relative_error"])).values()
    assert 0.01 < max(losses) <= 0.2
    assert "of the changes themselves" in summary(file)


def test_the_command_prints_rank_and_loss(
    capsys: pytest.CaptureFixture[str], emoji: Model, edit: Edit, tmp_path: Path
) -> None:
    edit.save(tmp_path / "edit.safetensors")
    said = command(
        capsys, "export", "-m", "emoji", "-e", tmp_path / "edit.safetensors", "--to", "lora", "-o", tmp_path / "lora"
    )
    assert said.code == 0, said.errors
    assert "rank " in said.out
    assert "% is lost of what the layers put out for 1 prompts" in said.out


@pytest.mark.parametrize("loss", [-0.1, 1.0, float("nan")])
def test_a_loss_that_is_no_share_is_refused(loss: float, model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="loss"):
        lora(model, made(model), tmp_path / "lora", loss=loss)
