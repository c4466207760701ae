"""What reaches the layers of a backbone: runs with recorded inputs, with some layers' outputs held fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from erase.models import Condition, Model
from tests.tiny_families import SIDE

Recorded = dict[str, tuple[Tensor, Tensor]]


def condition_of(model: Model, prompt: str) -> Condition:
    return Condition.stack(model.encode([prompt]).conditions())


def run(pipe: Any, condition: Condition) -> Tensor:
    """The backbone's output for fixed latents and a fixed time."""
    noise = torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        if hasattr(pipe, "unet"):
            from erase.models import predict

            return predict(pipe, noise, torch.tensor(300), condition=condition)
        return run_transformer(pipe, noise, condition)


def run_transformer(pipe: Any, noise: Tensor, condition: Condition) -> Tensor:
    time, given = torch.tensor([0.3]), {"encoder_hidden_states": condition.states, "return_dict": False}
    given["pooled_projections"] = condition.pooled
    if type(pipe).__name__ == "StableDiffusion3Pipeline":
        return pipe.transformer(noise, timestep=time * 1000, **given)[0]
    packed = pipe._pack_latents(noise, 1, 4, SIDE, SIDE)
    image = pipe._prepare_latent_image_ids(1, SIDE // 2, SIDE // 2, "cpu", torch.float32)
    text = torch.zeros(condition.states.shape[1], 3)
    return pipe.transformer(packed, timestep=time, guidance=torch.tensor([3.5]), img_ids=image, txt_ids=text, **given)[
        0
    ]


@contextmanager
def hooked(backbone: nn.Module, make: Callable[[str], Any]) -> Iterator[None]:
    hooks = [
        module.register_forward_hook(make(name))
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def record(backbone: nn.Module, forward: Callable[[], Any]) -> Recorded:
    """Each linear layer's input and output of a run, by the layer's name."""
    seen: Recorded = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = (inputs[0].clone(), output.clone())

    with hooked(backbone, lambda name: partial(note, name)):
        forward()
    return seen


def record_held(
    backbone: nn.Module, forward: Callable[[], Any], held: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Each linear layer's input of a run in which the layers of `held` give what they gave then."""
    seen: dict[str, Tensor] = {}

    def hold(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        seen[name] = inputs[0].clone()
        return held[name][1] if name in held else None

    with hooked(backbone, lambda name: partial(hold, name)):
        forward()
    return seen
