"""CLIP scores on the field's scales, against transformers' own logits on a tiny CLIP."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from erase.evaluate.conventions import CONVENTIONS, clip_accuracy

CAPTIONS = ["a cat in noto style", "a dog", "a picture of a car"]


@pytest.fixture(scope="module")
def logits(tiny_model: Path) -> tuple[torch.Tensor, float, list[list[float]]]:
    """The network's logits [images, texts], its scale, and the same cosines in float64 from its raw features."""
    folder = tiny_model / "judge/clip"
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(pixel_values=pixels, **tokens)
        images = model.get_image_features(pixel_values=pixels).pooler_output.double().tolist()
        texts = model.get_text_features(**tokens).pooler_output.double().tolist()
    return (
        found.logits_per_image,
        float(model.logit_scale.detach().exp()),
        [[cosine(x, y) for y in texts] for x in images],
    )


def cosine(x: list[float], y: list[float]) -> float:
    dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
    return dot / math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))


def test_the_logit_conventions_are_the_network_s_logits_at_a_scale_of_100(
    logits: tuple[torch.Tensor, float, list[list[float]]],
) -> None:
    own, scale, cosines = logits
    for image in range(3):
        for text in range(3):
            at_100 = float(own[image, text]) * 100 / scale
            for name in ("clip/b32-logit", "clip/l14-logit"):
                assert CONVENTIONS[name].score(cosines[image][text]) == pytest.approx(at_100, abs=1e-4)
            over_100 = CONVENTIONS["clip/b32-logit-over-100"].score(cosines[image][text])
            assert over_100 == pytest.approx(at_100 / 100, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "cosine", "expected"),
    [
        ("clip/b32-logit", 0.313, 31.3),
        ("clip/b32-logit", -0.1, -10.0),
        ("clip/b32-logit-over-100", 0.313, 0.313),
        ("clip/l14-logit", -0.02, -2.0),
        ("clip/l14-x100", 0.26, 26.0),
        ("clip/l14-x100", -0.02, 0.0),
        ("clip/hessel-2.5", 0.3, 0.75),
        ("clip/hessel-2.5", -0.3, 0.0),
        ("clip/hessel-2.5-bare", 0.3, 0.75),
    ],
)
def test_each_scale_is_its_paper_s(name: str, cosine: float, expected: float) -> None:
    assert CONVENTIONS[name].score(cosine) == pytest.approx(expected, abs=1e-12)


def test_hessel_s_captions_have_a_prefix_and_spm_s_none() -> None:
    assert CONVENTIONS["clip/hessel-2.5"].text("a cat") == "A photo depicts a cat"
    assert CONVENTIONS["clip/hessel-2.5-bare"].text("a cat") == "a cat"


def test_a_convention_is_named_as_it_is_found_and_says_its_network() -> None:
    assert {"clip/b32-logit", "clip/l14-x100", "clip/hessel-2.5"} <= set(CONVENTIONS)
    assert all(one.name == name and one.network.startswith("openai/") for name, one in CONVENTIONS.items())


def test_clip_accuracy_is_the_share_nearer_to_the_target() -> None:
    assert clip_accuracy([0.3, 0.2, 0.25, 0.1], [0.1, 0.25, 0.25, 0.0]) == 0.5
    assert math.isnan(clip_accuracy([], []))
    with pytest.raises(ValueError):
        clip_accuracy([0.1], [])
