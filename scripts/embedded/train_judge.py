"""Trains the judge's classifiers on real icons under disturbances: which style, which object.

python scripts/embedded/train_judge.py style
python scripts/embedded/train_judge.py object --steps 2000
"""

from __future__ import annotations

import copy
import sys

import numpy as np
import torch
from icons import load_objects, load_styles
from pictures import disturbed, widely_disturbed
from torch import Tensor
from torch.nn.functional import cross_entropy
from training import Stage, average_into, load_icons, options
from transformers import ResNetConfig, ResNetForImageClassification

LABELS = {"style": load_styles, "object": load_objects}
VIEWS = {"style": widely_disturbed, "object": disturbed}  # a style shows in details, which differ more with the scale


def build_classifier(which: str) -> ResNetForImageClassification:
    labels = list(LABELS[which]())
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[48, 96, 160],
            depths=[2, 2, 2],
            layer_type="basic",
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
    )


def main() -> None:
    which = sys.argv.pop(1)
    chosen = options(__doc__, steps=4000, batch=64, lr=2e-3)
    icons, model = load_icons(), build_classifier(which)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.lr, weight_decay=0.02, fused=True)
    stage = Stage(f"judge-{which}", {"model": model, "average": average}, optimizer, chosen.steps, chosen.lr)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((chosen.seed, len(which), step))
        styles = rng.integers(icons.shape[0], size=chosen.batch)
        things = rng.integers(icons.shape[1], size=chosen.batch)
        pictures = torch.stack([VIEWS[which](icons[s, t], rng) for s, t in zip(styles, things, strict=True)])
        labels = torch.from_numpy(styles if which == "style" else things)
        logits = model(pixel_values=pictures).logits
        right = (logits.argmax(1) == labels).float().mean().item()
        return cross_entropy(logits, labels, label_smoothing=0.05), {"right": right}

    stage.run(loss_of, lambda step: average_into(average, model, step, decay=0.995))


if __name__ == "__main__":
    main()
