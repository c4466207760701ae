"""LPIPS (Zhang et al. 2018), version 0.1 on AlexNet: how far two pictures are apart to a trained eye.

d(x, y) = sum over layers l of the mean over places of w_l . (f_l(x) - f_l(y))^2, where f_l are AlexNet's activations
after its l-th ReLU, scaled to unit length over channels at each place. The weights are the user's own: all of them in
one safetensors file under the names of the package `lpips` (BSD-2). Erasure papers shrink pictures to 64 pixels first,
and call the mean over the erased artists' prompts LPIPS_e (higher is better), over the others' LPIPS_u (lower is).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from erase.errors import PickleRefused, ScoreFailed

SIDE = 64  # pixels, of ESD, UCE and AdvUnlearn
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Of each layer: its name in the file, its stride, its padding, and whether a pooling of 3 by 2 goes before it.
LAYERS = (
    ("net.slice1.0", 4, 2, False),
    ("net.slice2.3", 1, 2, True),
    ("net.slice3.6", 1, 1, True),
    ("net.slice4.8", 1, 1, False),
    ("net.slice5.10", 1, 1, False),
)
HOW = (
    "python -c \"import lpips; from safetensors.torch import save_file; d = lpips.LPIPS(net='alex').state_dict(); "
    "save_file({k: v.clone() for k, v in d.items()}, 'lpips.safetensors')\""
)


@dataclass(frozen=True)
class Lpips:
    """The distance by the weights in a file; raises ScoreFailed if they are not those of LPIPS on AlexNet."""

    weights: Path

    @cached_property
    def _weights(self) -> Mapping[str, Tensor]:
        if self.weights.suffix in (".pt", ".pth", ".bin"):
            raise PickleRefused(
                f"{self.weights} is a pickle, which can run code when it is read; write it again: {HOW}"
            )
        try:
            found = load_file(self.weights)
        except (OSError, SafetensorError) as error:
            raise ScoreFailed(f"{self.weights} cannot be read ({error}); make it by: {HOW}") from error
        names = [f"{name}.{part}" for name, *_ in LAYERS for part in ("weight", "bias")]
        names += [f"lin{number}.model.1.weight" for number in range(len(LAYERS))]
        if missing := [name for name in names if name not in found]:
            raise ScoreFailed(f"{self.weights} is not LPIPS on AlexNet: it lacks {missing[0]}; make it by: {HOW}")
        return found

    def __call__(self, pairs: Sequence[tuple[Image.Image, Image.Image]], *, side: int = SIDE) -> list[float]:
        """The distance of each pair, of pictures resized to `side` pixels."""
        if not pairs:
            return []
        first, second = (torch.stack([prepared(pair[place], side) for pair in pairs]) for place in (0, 1))
        return [float(value) for value in distances(first, second, self._weights)]


def prepared(picture: Image.Image, side: int) -> Tensor:
    """A picture, [3, side, side] in -1 .. 1."""
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1


@torch.inference_mode()
def distances(first: Tensor, second: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """The distance of each pair of pictures [pairs, 3, height, width] in -1 .. 1, [pairs]."""
    total = torch.zeros(len(first), dtype=first.dtype)
    layers = zip(activations(first, weights), activations(second, weights), strict=True)
    for number, (left, right) in enumerate(layers):
        apart = (unit(left) - unit(right)) ** 2
        weighed = conv2d(apart, weights[f"lin{number}.model.1.weight"].to(apart.dtype))
        total += weighed.mean((1, 2, 3))
    return total


def activations(pictures: Tensor, weights: Mapping[str, Tensor]) -> list[Tensor]:
    """AlexNet's five activations of pictures in -1 .. 1."""
    shift, scale = (torch.tensor(one, dtype=pictures.dtype).view(1, 3, 1, 1) for one in (SHIFT, SCALE))
    states, found = (pictures - shift) / scale, []
    for name, stride, padding, pooled in LAYERS:
        weight, bias = (weights[f"{name}.{part}"].to(pictures.dtype) for part in ("weight", "bias"))
        states = max_pool2d(states, 3, 2) if pooled else states
        states = relu(conv2d(states, weight, bias, stride=stride, padding=padding))
        found.append(states)
    return found


def unit(states: Tensor) -> Tensor:
    """The states at unit length over channels."""
    return states / (states.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
