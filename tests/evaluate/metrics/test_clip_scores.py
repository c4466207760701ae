"""The CLIP score is the cosine times 100, as transformers' own CLIP gives it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from erase.errors import ScoreFailed
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.metrics.figures import clip_scores
from erase.evaluate.networks.clip import ClipFolder
from tests.evaluate.pictures import shot

SHOTS = [
    shot("a", "a cat in noto style", style="noto"),
    shot("b", "a picture of a dog in blob style", group="kept", style="blob"),
    shot("c", "fish", group="unrelated"),
    shot("d", "a car", group="unrelated", side="before"),
]


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image.Image]:
    rng = np.random.default_rng(0)
    return {one.id: Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for one in SHOTS}


def figures(judge: Path, pictures: Mapping[str, Image.Image]) -> list[Figure]:
    towers = ClipFolder(judge / "clip")
    vectors = dict(zip(pictures, towers.pictures(list(pictures.values())), strict=True)) if pictures else {}
    return clip_scores(SHOTS, vectors, towers, version="clip/tiny")


def scores(judge: Path, pictures: Mapping[str, Image.Image]) -> dict[tuple[str, str], float]:
    return {(one.group, one.side): one.value for one in figures(judge, pictures)}


@torch.inference_mode()
def cosine(folder: Path, text: str, picture: Image.Image) -> float:
    """From the logits of the whole model over its own scale: no feature method of it is called, no text padded."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float64).eval()
    tokens = CLIPTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float64)).permute(2, 0, 1) / 127.5 - 1
    logits = model(**tokens, pixel_values=pixels[None]).logits_per_image
    return float(logits / model.logit_scale.exp())


def test_a_score_is_100_times_the_cosine_of_clips_own_forward(
    tiny_model: Path, pictures: dict[str, Image.Image]
) -> None:
    ours = scores(tiny_model / "judge", pictures)
    theirs = {
        (one.group, one.side): 100 * cosine(tiny_model / "judge/clip", one.row.prompt, pictures[one.id])
        for one in SHOTS
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


def test_lower_is_better_for_what_is_erased_alone(tiny_model: Path, pictures: dict[str, Image.Image]) -> None:
    made = figures(tiny_model / "judge", pictures)
    assert {one.group: one.direction for one in made} == {"erased": "lower", "kept": "higher", "unrelated": "higher"}
    assert {one.version for one in made} == {"clip/tiny"}


@pytest.fixture
def judge(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model / "judge", tmp_path / "judge"))


def test_a_clip_that_cannot_be_read_is_told(judge: Path, pictures: dict[str, Image.Image]) -> None:
    (file,) = (judge / "clip").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ScoreFailed, match="cannot be loaded"):
        scores(judge, pictures)


def test_a_picture_of_the_call_before_has_the_same_vector_and_one_beside_it_changes_none(
    tiny_model: Path, pictures: dict[str, Image.Image]
) -> None:
    towers, (first, second, *_) = ClipFolder(tiny_model / "judge/clip"), pictures.values()
    alone = towers.pictures([first])
    both = towers.pictures([second, first, second])
    assert torch.equal(both[1], alone[0])
    assert torch.equal(both[0], both[2])
    torch.testing.assert_close(both[0], ClipFolder(tiny_model / "judge/clip").pictures([second])[0])


def test_a_prompt_is_compared_as_far_as_the_clip_reads_it(tiny_model: Path) -> None:
    towers = ClipFolder(tiny_model / "judge/clip")
    long, whole = "cat " * 30, "cat " * 14
    towers.check([whole])
    vectors = towers.texts([long, whole], cut=True)
    assert torch.equal(vectors[0], vectors[1])
    with pytest.raises(ScoreFailed, match="has more than the 14 tokens"):
        towers.check([long])
    with pytest.raises(ScoreFailed, match="more than the 14 tokens"):
        towers.texts([long])
