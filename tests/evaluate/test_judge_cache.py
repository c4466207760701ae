"""What a network says of an image depends on the image alone, and each image is read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.errors import ScoreFailed
from erase.evaluate.judge_cache import AT_ONCE, JudgeCache
from erase.evaluate.networks.loading import load_network
from erase.evaluate.scores.clip import Clip
from erase.evaluate.scores.clip_accuracy import ClipAccuracy
from erase.evaluate.scores.judge import Judge


@pytest.fixture(scope="module")
def pixels() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    colours = torch.rand(AT_ONCE + 9, 3, 1, 1, generator=generator) * 2 - 1
    noise = 0.3 * torch.randn(AT_ONCE + 9, 3, 64, 64, generator=generator)
    return {str(number): one for number, one in enumerate((colours + noise).clamp(-1, 1))}


def test_labels_are_those_of_the_network(tiny_model: Path, pixels: dict[str, Tensor]) -> None:
    network = load_network("AutoModelForImageClassification", tiny_model / "judge/style", what="judge")
    with torch.inference_mode():
        best = network(pixel_values=torch.stack(list(pixels.values()))).logits.argmax(1).tolist()
    expected = {name: network.config.id2label[number] for name, number in zip(pixels, best, strict=True)}
    assert JudgeCache().labels(tiny_model / "judge/style", pixels) == expected
    assert len(set(expected.values())) > 1


def test_no_bit_depends_on_order_company_or_time(tiny_model: Path, pixels: dict[str, Tensor]) -> None:
    folder = tiny_model / "judge/clip"
    whole, turned, slowly = JudgeCache().vectors(folder, pixels), JudgeCache(), JudgeCache()
    backwards = turned.vectors(folder, dict(reversed(pixels.items())))
    for name, one in pixels.items():
        slowly.vectors(folder, {name: one})
    one_by_one = slowly.vectors(folder, pixels)
    for name, vector in whole.items():
        assert torch.equal(vector, backwards[name])
        assert torch.equal(vector, one_by_one[name])


def test_an_image_is_read_once_by_each_network(
    tiny_model: Path, pixels: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, calls = JudgeCache(), []
    towers = readings.towers(tiny_model / "judge/clip")
    batch = type(towers).batch

    def counting(self: Any, given: Tensor) -> Tensor:
        calls.append(len(given))
        return batch(self, given)

    monkeypatch.setattr(type(towers), "batch", counting)
    readings.ahead(tiny_model / "judge", ("clip", "style"), pixels)
    assert calls == [AT_ONCE, AT_ONCE]
    readings.vectors(tiny_model / "judge/clip", pixels)
    assert len(calls) == 2


def test_every_score_says_what_it_reads() -> None:
    assert Clip.reads == ClipAccuracy.reads == ("clip",)
    assert set(Judge.reads) == {"style", "object"}


def test_a_judge_that_cannot_be_loaded_is_told(tmp_path: Path, pixels: dict[str, Tensor]) -> None:
    with pytest.raises(ScoreFailed, match="cannot be loaded"):
        JudgeCache().labels(tmp_path, pixels)
