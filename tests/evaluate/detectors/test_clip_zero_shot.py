"""CLIP zero-shot: the shares are those of transformers' own logits_per_image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from erase.errors import ScoreFailed
from erase.evaluate.detectors.clip_zero_shot import ClipZeroShot


def test_shares_are_the_softmax_of_the_network_s_logits(tiny_model: Path) -> None:
    folder = tiny_model / "judge/clip"
    rng = np.random.default_rng(2)
    shown = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(3)]
    found = ClipZeroShot(folder, ("cat", "dog"), template="a {}", others=("car", "dog"))(shown)
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    pixels = torch.stack([torch.tensor(np.asarray(one) / 127.5 - 1).permute(2, 0, 1).float() for one in shown])
    tokens = tokenizer(["a cat", "a dog", "a car"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(pixel_values=pixels, **tokens).logits_per_image.double()
    shares = (logits.exp() / logits.exp().sum(1, keepdim=True)).tolist()
    for answers, row in zip(found, shares, strict=True):
        said = {one.label: one.score for one in answers}
        assert said == pytest.approx(dict(zip(("cat", "dog", "car"), row, strict=True)), abs=1e-5)


def test_one_label_is_no_choice(tiny_model: Path) -> None:
    with pytest.raises(ScoreFailed, match="got 1 labels"):
        ClipZeroShot(tiny_model / "judge/clip", ("cat",))


@pytest.mark.parametrize("template", ["a photo", "{} and {}"])
def test_a_template_has_one_place(tiny_model: Path, template: str) -> None:
    with pytest.raises(ScoreFailed, match=r"expected one \{\}"):
        ClipZeroShot(tiny_model / "judge/clip", ("cat", "dog"), template=template)
