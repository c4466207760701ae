"""Trains a CLIP on icons and captions: the pipeline's text encoder, or the judge's own pair of towers.

python scripts/embedded/train_clip.py pipeline
python scripts/embedded/train_clip.py judge --seed 1
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from captions import Words, caption, load_words
from pictures import disturbed
from tokenizer import FOLDER, LENGTH
from torch import Tensor
from torch.nn.functional import log_softmax, normalize
from training import Stage, load_icons, options
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

TOWERS: dict[str, dict[str, dict[str, Any]]] = {
    "pipeline": {
        "text": {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 3, "num_attention_heads": 3},
        "vision": {
            "hidden_size": 192,
            "intermediate_size": 576,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "patch_size": 16,
        },
    },
    "judge": {
        "text": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4},
        "vision": {
            "hidden_size": 160,
            "intermediate_size": 480,
            "num_hidden_layers": 4,
            "num_attention_heads": 5,
            "patch_size": 8,
        },
    },
}
SAID = np.array([0.70, 0.22, 0.08])  # shares of captions that name both, the object alone, the style alone


def build_clip(which: str, tokenizer: CLIPTokenizer) -> CLIPModel:
    towers, words = TOWERS[which], len(tokenizer)
    ids = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    text = towers["text"] | {"vocab_size": words, "max_position_embeddings": LENGTH} | ids
    vision = towers["vision"] | {"image_size": 64}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def draw_captions(words: Words, cells: list[tuple[int, int]], rng: np.random.Generator) -> tuple[list[str], Tensor]:
    """A caption for each picture, and which pictures each caption is true of: [captions, pictures]."""
    captions, true_of = [], torch.zeros(len(cells), len(cells))
    styles, things = (torch.tensor(column) for column in zip(*cells, strict=True))
    for row, (style, thing) in enumerate(cells):
        said = int(rng.choice(3, p=SAID))
        named = (style if said != 1 else None, thing if said != 2 else None)
        captions.append(caption(words, named[0], named[1], rng=rng))
        fits = torch.ones(len(cells))
        fits = fits * (styles == style) if named[0] is not None else fits
        true_of[row] = fits * (things == thing) if named[1] is not None else fits
    return captions, true_of


def contrast(logits: Tensor, true_of: Tensor) -> Tensor:
    """Cross-entropy in both directions, where a caption may be true of several pictures."""
    by_caption = true_of / true_of.sum(1, keepdim=True)
    by_picture = true_of / true_of.sum(0, keepdim=True)
    return -(by_caption * log_softmax(logits, 1)).sum(1).mean() - (by_picture * log_softmax(logits, 0)).sum(0).mean()


def main() -> None:
    which = sys.argv.pop(1)
    chosen = options(__doc__, steps=2000, batch=128, lr=1e-3)
    icons, words, tokenizer = load_icons(), load_words(), CLIPTokenizer.from_pretrained(FOLDER)
    model = build_clip(which, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    stage = Stage(f"clip-{which}", {"model": model}, optimizer, chosen.steps, chosen.lr)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((chosen.seed, step))
        picks = rng.choice(icons.shape[0] * icons.shape[1], chosen.batch, replace=False)
        cells = [divmod(int(pick), icons.shape[1]) for pick in picks]
        captions, true_of = draw_captions(words, cells, rng)
        pictures = torch.stack([disturbed(icons[cell], rng) for cell in cells])
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        seen = model.get_image_features(pixel_values=pictures).pooler_output
        read = model.get_text_features(**tokens).pooler_output
        scale = model.logit_scale.exp().clamp(max=100)
        logits = scale * normalize(read) @ normalize(seen).T
        right = (true_of.gather(1, logits.argmax(1, keepdim=True))).mean().item()
        return contrast(logits, true_of), {"right": right}

    stage.run(loss_of, lambda step: None)


if __name__ == "__main__":
    main()
