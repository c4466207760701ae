"""The network that trained methods ask and train: the one place where it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from erase.errors import BadModel
from erase.methods._spaces import SPACES, Level, Space, prediction_of
from erase.models import Model

Sampling = Literal["ddim", "own"]


@dataclass
class Denoiser:
    """A model's network in float32, its noise schedule, maybe its text encoder; other parts are not kept.

    `evaluations` counts samples through the network, three for each that is trained through: a backward pass costs two.
    """

    component: str
    network: Any
    scheduler: Any
    text_encoder: Any = None
    evaluations: int = 0

    @staticmethod
    def of(model: Model, *, text_encoder: bool = False) -> Denoiser:
        """The frozen network of a model, and its text encoder where that is asked for.

        Raises BadModel for a family whose network is given more than a prompt's token states.
        """
        pipe = model.pipeline(torch.float32)
        unet = getattr(pipe, "unet", None)
        if unet is None or unet.config.get("addition_embed_type"):
            raise BadModel(f"a {model.family} model cannot be trained yet; expected one whose UNet reads token states.")
        network = pipe.unet.requires_grad_(False).eval()
        return Denoiser("unet", network, pipe.scheduler, pipe.text_encoder if text_encoder else None)

    def predict(self, inputs: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """What the network predicts for noisy latents [samples, ...] at times [samples] under prompts' states."""
        self.evaluations += len(inputs) * (3 if torch.is_grad_enabled() else 1)
        predicted: Tensor = self.network(inputs, times, encoder_hidden_states=states).sample
        return predicted

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
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent of the model's own size."""
        size = self.network.config.sample_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return int(self.network.config.in_channels), int(height), int(width)

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

    def sampler(self, kind: Sampling) -> Any:
        """A fresh scheduler with the model's settings: DDIM, or one of the model's own kind."""
        from diffusers import DDIMScheduler

        config = self.scheduler.config
        if kind == "own" or self.space == "flow":
            return type(self.scheduler).from_config(config)
        # Settings that say nothing of clipping mean none; DDIM by itself would clip latents, which are no pixels.
        return DDIMScheduler.from_config(config, clip_sample=config.get("clip_sample", False))
