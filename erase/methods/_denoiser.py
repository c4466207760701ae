"""The network that trained methods ask and train: the one place where it is called."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from erase.errors import BadModel
from erase.methods._spaces import SPACES, Level, Space, prediction_of
from erase.models import Condition, Model

Sampling = Literal["ddim", "own"]


@dataclass
class Denoiser:
    """A model's network in float32, its noise schedule, maybe its text encoder; other parts are not kept.

    `forward` is the family's way to ask the network, `shape` of a latent: channels, height, width. `evaluations` counts
    samples through the network, three for each that is trained through: a backward pass costs two.
    """

    component: str
    network: Any
    scheduler: Any
    forward: Callable[..., Tensor]
    shape: tuple[int, int, int]
    text_encoder: Any = None
    evaluations: int = 0

    @staticmethod
    def of(model: Model, *, text_encoder: bool = False, size: int = 0) -> Denoiser:
        """The frozen network of a model, and its text encoder where that is asked for.

        `size` in pixels, 0 for the model's own. Raises BadOption for a size that the model cannot draw.
        """
        return Denoiser.from_pipe(model, model.pipeline(torch.float32), text_encoder=text_encoder, size=size)

    @staticmethod
    def from_pipe(model: Model, pipe: Any, *, text_encoder: bool = False, size: int = 0) -> Denoiser:
        """The network of a loaded pipeline of a model."""
        network = getattr(pipe, model.backbone).requires_grad_(False).eval()
        parts = SimpleNamespace(**{model.backbone: network, "vae_scale_factor": pipe.vae_scale_factor})
        forward, shape = partial(type(model).predict, parts), model.latent_shape(pipe, size)
        return Denoiser(
            model.backbone, network, pipe.scheduler, forward, shape, pipe.text_encoder if text_encoder else None
        )

    def predict(self, inputs: Tensor, times: Tensor, given: Condition) -> Tensor:
        """What the network predicts for noisy latents [samples, ...] at times [samples] under prompts' conditions."""
        self.evaluations += len(inputs) * (3 if torch.is_grad_enabled() else 1)
        return self.forward(inputs, times, condition=given)

    @property
    def space(self) -> Space:
        """What the network predicts; raises BadModel."""
        if "FlowMatch" in type(self.scheduler).__name__:
            return "flow"
        kind = self.scheduler.config.prediction_type
        for space in SPACES:
            if kind == space:
                return space
        raise BadModel(f'the model predicts "{kind}"; expected one of {", ".join(SPACES)} to train it.')

    @property
    def embeds_guidance(self) -> bool:
        """Whether the network is told how far to follow a prompt, so that sampling asks it once a step."""
        return bool(self.network.config.get("guidance_embeds"))

    @property
    def times(self) -> int:
        """How many noise levels the model was trained on."""
        return int(self.scheduler.config.num_train_timesteps)

    def level(self, times: Tensor) -> Level:
        """The noise levels of times [samples], to broadcast over latents."""
        if self.space == "flow":
            sigma = (times.float() / self.times).view(-1, 1, 1, 1)
            return Level(1 - sigma, sigma)
        kept = self.scheduler.alphas_cumprod[times.long()].view(-1, 1, 1, 1)
        return Level(kept.sqrt(), (1 - kept).sqrt())

    def truth(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network would predict at these times if it knew the clean latent and the noise."""
        return prediction_of(self.space, clean, noise, level=self.level(times))

    def noise(self, seed: int) -> Tensor:
        """The noise of a seed, one latent."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))

    def sampler(self, kind: Sampling, steps: int) -> Any:
        """A fresh scheduler with the model's settings, set to some steps: DDIM, or one of the model's own kind."""
        from diffusers import DDIMScheduler

        config = self.scheduler.config
        if kind == "own" or self.space == "flow":
            scheduler = type(self.scheduler).from_config(config)
        else:
            # Settings that say nothing of clipping mean none; DDIM by itself would clip latents, which are no pixels.
            scheduler = DDIMScheduler.from_config(config, clip_sample=config.get("clip_sample", False))
        scheduler.set_timesteps(steps, **self._shift())
        return scheduler

    def _shift(self) -> dict[str, float]:
        """By how much a flow scheduler that asks for it shifts its times: more for a larger picture, as FLUX does."""
        config = self.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return {}
        least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        tokens = math.prod(self.shape[1:]) / 4
        return {"mu": low + (high - low) * (tokens - least) / (most - least)}
