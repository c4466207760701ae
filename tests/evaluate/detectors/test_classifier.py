"""A local classifier: its probabilities are the network's own on pictures prepared as its folder says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from erase.errors import ScoreFailed
from erase.evaluate.detectors.classifier import Classifier
from erase.evaluate.networks.preprocessing import Preparation, preparation_of
from tests.tiny import tiny_classifier

LABELS = ("tench, Tinca tinca", "cassette player", "church")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pictures(count: int = 3, side: int = 64) -> list[Image.Image]:
    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny_classifier(LABELS).save_pretrained(path)
    return path


def test_probabilities_are_the_network_s_highest_first(folder: Path) -> None:
    shown = pictures()
    found = Classifier(folder, domain="object")(shown)
    pixels = torch.stack([torch.tensor(np.asarray(one) / 127.5 - 1).permute(2, 0, 1).float() for one in shown])
    with torch.inference_mode():
        logits = Classifier(folder)._network(pixel_values=pixels).logits.double()
    shares = (logits.exp() / logits.exp().sum(1, keepdim=True)).tolist()
    for answers, row in zip(found, shares, strict=True):
        said = {one.label: one.score for one in answers}
        assert said == pytest.approx(dict(zip(("tench", "cassette player", "church"), row, strict=True)), abs=1e-5)
        assert [one.score for one in answers] == sorted(said.values(), reverse=True)
        assert {one.domain for one in answers} == {"object"}


def test_a_folder_that_holds_no_classifier_is_a_failed_run(tmp_path: Path) -> None:
    with pytest.raises(ScoreFailed, match="cannot be loaded"):
        Classifier(tmp_path)(pictures(1))


def write(folder: Path, config: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_resnet_50_s_preparation_is_resize_256_crop_224(tmp_path: Path) -> None:
    config = {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
    found = preparation_of(write(tmp_path, config | {"resample": 3}), side=64)
    assert (found.side, found.edge, found.mean, found.resample) == (224, 256, IMAGENET[0], 3)


def test_clip_s_preparation_is_resize_224_crop_224(tmp_path: Path) -> None:
    config = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
    found = preparation_of(write(tmp_path, config | {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}), side=64)
    assert (found.side, found.edge) == (224, 224)
    wide = Image.new("RGB", (448, 224), "#ffffff")
    pixels = found([wide])
    assert pixels.shape == (1, 3, 224, 224)
    assert torch.allclose(pixels, torch.full_like(pixels, 2.0))


def test_a_square_size_squeezes_the_whole_picture(tmp_path: Path) -> None:
    config = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    found = preparation_of(write(tmp_path, config), side=64)
    assert (found.side, found.edge) == (32, 0)
    assert found([Image.new("RGB", (10, 40))]).shape == (1, 3, 32, 32)


def test_the_middle_is_cropped() -> None:
    striped = np.zeros((8, 16, 3), dtype=np.uint8)
    striped[:, 4:12] = 255
    pixels = Preparation(8, 8, mean=(0.0,) * 3, deviation=(1.0,) * 3)([Image.fromarray(striped)])
    assert torch.equal(pixels, torch.ones(1, 3, 8, 8))


def test_a_preparation_that_cannot_be_read_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ScoreFailed, match="cannot be read"):
        preparation_of(tmp_path, side=64)
