"""Trains the second text encoder of `emoji-flow`: a small one that tells which object and style a caption is of.

That of `emoji` was trained before there were captions that describe without naming, and reads little in them.

python scripts/embedded/train_reader.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from captions import Words, caption, implicit_caption, load_descriptions, load_words
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training import Stage, options
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

EMOJI = Path(__file__).parent.parent.parent / "erase" / "models" / "emoji"
WIDTH, POOLED = 80, 64
SAID = np.array([0.30, 0.10, 0.10, 0.45, 0.05])  # both named, object only, style only, described, empty
Captioned = tuple[str, int, int]  # a caption, the object and the style that it is of; one past the last for unsaid


def build_reader(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    words = len(tokenizer)
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=POOLED,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=words - 2,
            eos_token_id=words - 1,
            pad_token_id=words - 1,
        )
    )


def draw(words: Words, descriptions: Words, rng: np.random.Generator) -> Captioned:
    """A random caption with what it says."""
    styles, things = len(words.styles), len(words.objects)
    style, thing = int(rng.integers(styles)), int(rng.integers(things))
    said = int(rng.choice(5, p=SAID))
    if said == 3:
        text, both = implicit_caption(words, descriptions, (style, thing), rng=rng)
        return text, thing, style if both else styles
    says_style, says_thing = said in (0, 2), said in (0, 1)
    text = caption(words, style if says_style else None, thing if says_thing else None, rng=rng)
    return text, thing if says_thing else things, style if says_style else styles


class Reader(nn.Module):
    """The encoder with one linear layer behind its pooled state for objects and one for styles."""

    def __init__(self, encoder: CLIPTextModelWithProjection, words: Words) -> None:
        super().__init__()
        self.encoder = encoder
        self.objects = nn.Linear(POOLED, len(words.objects) + 1)
        self.styles = nn.Linear(POOLED, len(words.styles) + 1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.encoder(tokens).text_embeds
        return self.objects(pooled), self.styles(pooled)


def main() -> None:
    chosen = options(__doc__, steps=3000, batch=128, lr=2e-3)
    tokenizer = CLIPTokenizer.from_pretrained(EMOJI / "tokenizer")
    words, descriptions = load_words(), load_descriptions()
    reader = Reader(build_reader(tokenizer), words)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=chosen.lr, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    stage = Stage("reader", {"model": reader}, optimizer, chosen.steps, chosen.lr)

    def tokens_of(texts: list[str]) -> Tensor:
        found: dict[str, Any] = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        return found["input_ids"]

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((chosen.seed, step))
        texts, *labels = zip(*[draw(words, descriptions, rng) for _ in range(chosen.batch)], strict=True)
        guessed, truth = reader(tokens_of(list(texts))), [torch.tensor(column) for column in labels]
        losses = [cross_entropy(one, true, label_smoothing=0.1) for one, true in zip(guessed, truth, strict=True)]
        right = [(one.argmax(1) == true).float().mean().item() for one, true in zip(guessed, truth, strict=True)]
        return sum(losses, torch.zeros(())), {"objects": right[0], "styles": right[1]}

    stage.run(loss_of, lambda step: None)
    reader.eval()
    right = []
    with torch.no_grad():
        for which, groups in enumerate((descriptions.objects, descriptions.styles)):
            seen = reader(tokens_of([three[2] for three in groups]))[which].argmax(1)
            right.append((seen == torch.arange(len(seen))).float().mean().item())
    print(f"held-back descriptions: {right[0]:.0%} of objects, {right[1]:.0%} of styles")


if __name__ == "__main__":
    main()
