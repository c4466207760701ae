"""The CLIP score is the cosine times 100, as transformers' own CLIP gives it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from erase.errors import ScoreFailed
from erase.evaluate.judges import ImageJudge
from erase.evaluate.networks.clip import ClipTowers
from erase.evaluate.scores.clip import VERSION, Clip
from erase.task import Target, Task
from tests.evaluate.pictures import shot

TASK = Task((Target("noto", "style", anchor="blob"),))
SHOTS = [
    shot("a", "a cat in noto style", style="noto"),
    shot("b", "a picture of a dog in blob style", group="kept", style="blob"),
    shot("c", "fish", group="unrelated"),
    shot("d", "a car", group="unrelated", side="before"),
]


@pytest.fixture(scope="module")
def pixels() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {one.id: torch.rand(3, 64, 64, generator=generator) * 2 - 1 for one in SHOTS}


def scores(folder: Path, pixels: Mapping[str, Tensor]) -> dict[tuple[str, str], float]:
    return {(one.group, one.side): one.value for one in Clip(ImageJudge.embedded(folder))(TASK, SHOTS, pixels).figures}


@torch.inference_mode()
def cosine(folder: Path, text: str, picture: Tensor) -> float:
    """From the logits of the whole model over its own scale: no feature method of it is called, no text padded."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float64).eval()
    tokens = CLIPTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    logits = model(**tokens, pixel_values=picture[None].double()).logits_per_image
    return float(logits / model.logit_scale.exp())


def test_a_score_is_100_times_the_cosine_of_clips_own_forward(tiny_model: Path, pixels: dict[str, Tensor]) -> None:
    ours = scores(tiny_model / "judge", pixels)
    theirs = {
        (one.group, one.side): 100 * cosine(tiny_model / "judge/clip", one.row.prompt, pixels[one.id]) for one in SHOTS
    }
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert len({round(value, 3) for value in ours.values()}) == len(SHOTS)


def test_a_missing_image_has_the_worst_score_of_its_group(tiny_model: Path) -> None:
    assert scores(tiny_model / "judge", {}) == {
        ("erased", "after"): 100.0,
        ("kept", "after"): 0.0,
        ("unrelated", "after"): 0.0,
        ("unrelated", "before"): 0.0,
    }


def test_lower_is_better_for_what_is_erased_alone(tiny_model: Path, pixels: dict[str, Tensor]) -> None:
    figures = Clip(ImageJudge.embedded(tiny_model / "judge"))(TASK, SHOTS, pixels).figures
    assert {one.group: one.direction for one in figures} == {"erased": "lower", "kept": "higher", "unrelated": "higher"}
    assert {one.version for one in figures} == {VERSION}


@pytest.fixture
def judge(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model / "judge", tmp_path / "judge"))


def test_a_clip_that_cannot_be_read_is_told(judge: Path, pixels: dict[str, Tensor]) -> None:
    (file,) = (judge / "clip").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ScoreFailed, match="cannot be loaded"):
        scores(judge, pixels)


def test_an_image_of_no_finite_vector_is_an_error_and_no_score(judge: Path, pixels: dict[str, Tensor]) -> None:
    with pytest.raises(ScoreFailed, match="NaN"):
        scores(judge, pixels | {"a": torch.full((3, 64, 64), float("nan"))})


def test_a_prompt_is_compared_as_far_as_the_clip_reads_it(tiny_model: Path) -> None:
    towers = ClipTowers(tiny_model / "judge/clip")
    long, whole = "cat " * 30, "cat " * 14
    assert towers.is_cut(long)
    assert not towers.is_cut(whole)
    vectors = towers.texts([long, whole], cut=True)
    assert torch.equal(vectors[long], vectors[whole])
    with pytest.raises(ScoreFailed, match="more than the 14 tokens"):
        towers.texts([long])
