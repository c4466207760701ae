"""The settings that the package carries are those of the published models, and make a whole model of a single file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import erase.models.storage.published as settings_module
from erase.config.prompts import Row
from erase.edit import Edit, EditInfo
from erase.errors import BadModel
from erase.export.checkpoint import checkpoint
from erase.models import open_model
from erase.models.storage.ldm import TEXTS
from erase.models.storage.published import published, shapes_of
from erase.models.storage.source import read_json
from erase.sampling.generate import generate, sample
from erase.sampling.sampler import Sampler
from tests.models.test_full_size import PUBLISHED, backbone
from tests.tiny_checkpoints import tiny_checkpoint

# Parameters of each part as the models' cards and papers count them, in millions.
MILLIONS = {
    "stable-diffusion": {"unet": 859.5, "vae": 83.7, "text_encoder": 123.1},
    "stable-diffusion-2": {"unet": 865.9, "vae": 83.7, "text_encoder": 340.4},
    "stable-diffusion-xl": {"unet": 2567.5, "vae": 83.7, "text_encoder": 123.1, "text_encoder_2": 694.7},
}


@pytest.mark.parametrize("family", sorted(TEXTS))
def test_every_part_has_the_published_size(family: str) -> None:
    with published(family) as folder:
        counted = {
            part: sum(
                torch.Size(shape).numel() for shape in shapes_of(read_json(folder / part / "config.json")).values()
            )
            / 1e6
            for part in MILLIONS[family]
        }
        assert set(counted) == {file.parent.name for file in folder.glob("*/config.json")}
    assert counted == {part: pytest.approx(millions, abs=0.1) for part, millions in MILLIONS[family].items()}


@pytest.mark.parametrize("family", sorted(TEXTS))
def test_the_unet_is_the_published_one(family: str) -> None:
    _, settings, _ = PUBLISHED[family]
    with published(family, "v_prediction") as folder:
        config = json.loads((folder / "unet/config.json").read_text(encoding="utf-8"))
        shapes = shapes_of(config)
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    assert {key: config[key] for key in shown if key != "sample_size"} == {
        key: value for key, value in shown.items() if key != "sample_size"
    }
    assert shapes == {key: tuple(value.shape) for key, value in backbone(family).state_dict().items()}


def test_the_second_generation_has_to_say_what_it_predicts() -> None:
    with pytest.raises(BadModel, match="noise or velocity"), published("stable-diffusion-2", None):
        pass
    for prediction, side in (("epsilon", 64), ("v_prediction", 96)):
        with published("stable-diffusion-2", prediction) as folder:
            assert json.loads((folder / "unet/config.json").read_text(encoding="utf-8"))["sample_size"] == side
            said = json.loads((folder / "scheduler/scheduler_config.json").read_text(encoding="utf-8"))
            assert said["prediction_type"] == prediction
    with pytest.raises(BadModel, match='"sample"'), published("stable-diffusion", "sample"):
        pass


@pytest.mark.parametrize("family", sorted(TEXTS))
def test_a_file_without_settings_draws_what_its_folder_draws(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = tiny_checkpoint(family, tmp_path)
    model = open_model(folder)
    nothing = Edit(EditInfo("test", {}, {}, family, model.fingerprint))
    file = checkpoint(model, nothing, tmp_path / "whole")
    shutil.copytree(
        folder, tmp_path / "settings" / family, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer*")
    )
    monkeypatch.setattr(settings_module, "_SETTINGS", tmp_path / "settings")
    rows, sampler = [Row("a cat by Van Gogh", 0)], Sampler(steps=2, batch=1)
    (ours,), (theirs,) = (
        generate(one, rows, tmp_path / "images", sampler=sampler) for one in (open_model(file), model)
    )
    assert ours != theirs  # made again
    with Image.open(ours) as one, Image.open(theirs) as other:
        assert one.tobytes() == other.tobytes()


def test_a_file_marked_for_velocity_and_zero_terminal_snr_is_drawn_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = tiny_checkpoint("stable-diffusion-xl", tmp_path)
    model = open_model(folder)
    nothing = Edit(EditInfo("test", {}, {}, model.family, model.fingerprint))
    whole = load_file(checkpoint(model, nothing, tmp_path / "whole"))
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}  # as derivatives of SDXL carry them
    save_file(whole | marks, tmp_path / "marked.safetensors")
    settings = tmp_path / "settings" / model.family
    shutil.copytree(folder, settings, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer*"))
    monkeypatch.setattr(settings_module, "_SETTINGS", tmp_path / "settings")
    file = folder / "scheduler/scheduler_config.json"
    said = read_json(file) | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    plain = [row.tobytes() for _, row in sample(model, [Row("a cat by Van Gogh", 0)], Sampler(steps=3, batch=1))]
    file.write_text(json.dumps(said), encoding="utf-8")
    ours, theirs = (
        [row.tobytes() for _, row in sample(one, [Row("a cat by Van Gogh", 0)], Sampler(steps=3, batch=1))]
        for one in (open_model(tmp_path / "marked.safetensors"), open_model(folder))
    )
    assert ours == theirs != plain


def test_what_a_file_predicts_is_read_from_it(tmp_path: Path) -> None:
    folder, _ = tiny_checkpoint("stable-diffusion-2", tmp_path)
    model = open_model(folder)
    nothing = Edit(EditInfo("test", {}, {}, model.family, model.fingerprint))
    file = checkpoint(model, nothing, tmp_path / "whole")
    save_file(load_file(file), tmp_path / "silent.safetensors")
    with pytest.raises(BadModel, match="noise or velocity"):
        open_model(tmp_path / "silent.safetensors").check_sampling()
    with pytest.raises(BadModel, match="published ones"):  # it says so, and only its shapes are others
        open_model(file).check_sampling()
    open_model(tmp_path / "silent.safetensors", config=folder).check_sampling()


def test_settings_for_what_has_its_own_are_refused(tiny_model: Path) -> None:
    with pytest.raises(BadModel, match="has its own settings"):
        open_model(tiny_model, config=tiny_model)


@pytest.mark.parametrize("family", sorted(TEXTS))
def test_the_network_alone_of_a_file_is_its_folders(family: str, tmp_path: Path) -> None:
    folder, _ = tiny_checkpoint(family, tmp_path)
    model = open_model(folder)
    nothing = Edit(EditInfo("test", {}, {}, family, model.fingerprint))
    whole = open_model(checkpoint(model, nothing, tmp_path / "whole"), config=folder)
    alone, expected = whole.backbone_alone(), model.backbone_alone()
    assert alone.vae is alone.text_encoder is None
    assert alone.vae_scale_factor == expected.vae_scale_factor
    assert dict(alone.scheduler.config) == dict(expected.scheduler.config)
    values = alone.unet.state_dict()
    assert all(torch.equal(values[name], value) for name, value in expected.unet.state_dict().items())
