"""Q16: the nearer of two learned vectors, whose pickle is not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from erase.errors import PickleRefused, ScoreFailed
from erase.evaluate.detectors.q16 import Q16
from erase.evaluate.networks.clip import ClipFolder


def shown() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(4)]


def test_the_score_is_the_softmax_over_a_hundred_cosines(tiny_model: Path, tmp_path: Path) -> None:
    folder, file = tiny_model / "judge/clip", tmp_path / "prompts.safetensors"
    vectors = torch.randn(2, 16, generator=torch.Generator().manual_seed(4)) * 5
    save_file({"prompts": vectors}, file)
    found = [answers[0] for answers in Q16(folder, file)(shown())]
    images = ClipFolder(folder).pictures(shown()).double().numpy()
    units = vectors.double().numpy() / np.linalg.norm(vectors.double().numpy(), axis=1, keepdims=True)
    safe, unsafe = (100 * images @ units.T).T
    assert [one.score for one in found] == pytest.approx(list(1 / (1 + np.exp(safe - unsafe))), abs=1e-4)
    assert {one.label for one in found} == {"inappropriate"}


def test_the_official_pickle_is_refused_with_the_way_out(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(PickleRefused, match="save it so once"):
        Q16(tiny_model / "judge/clip", tmp_path / "prompts.p")(shown())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"other": torch.zeros(2, 16)}, "holds no tensor `prompts`"),
        ({"prompts": torch.ones(3, 16)}, "of shape"),
        ({"prompts": torch.ones(2, 768)}, "they belong to ViT-L/14"),
    ],
)
def test_other_vectors_are_refused(
    tiny_model: Path, tmp_path: Path, tensors: dict[str, torch.Tensor], said: str
) -> None:
    save_file(tensors, tmp_path / "prompts.safetensors")
    with pytest.raises(ScoreFailed, match=said):
        Q16(tiny_model / "judge/clip", tmp_path / "prompts.safetensors")(shown())
