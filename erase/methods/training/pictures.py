"""Noisy latents of finished pictures, and the loss that a diffusion model is trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.methods.training.denoiser import Denoiser
from erase.methods.training.session import Session


@dataclass(frozen=True)
class Noised:
    """Clean latents with noise of drawn levels: `inputs` and `truth` [count, ...], `times` [count]."""

    inputs: Tensor
    times: Tensor
    truth: Tensor

    @staticmethod
    def of(denoiser: Denoiser, clean: Tensor, generator: torch.Generator) -> Noised:
        """Noise of a level drawn evenly for each; `truth` is what the network would predict if it knew it."""
        times = torch.randint(denoiser.times, (len(clean),), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        return Noised(denoiser.level(times).noisy(clean, noise), times, denoiser.truth(clean, noise, times))

    def predicted(self, session: Session, texts: Sequence[str]) -> Tensor:
        """What the network predicts under prompts."""
        return session.denoiser.predict(self.inputs, self.times, session.given(texts))


def picture_loss(session: Session, clean: Tensor, texts: Sequence[str], *, generator: torch.Generator) -> Tensor:
    """The loss of a diffusion model on pictures' latents, with noise that is drawn."""
    noised = Noised.of(session.denoiser, clean, generator)
    return diffusion_loss(noised.predicted(session, texts), noised.truth)


def diffusion_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean squared distance of a prediction to what was mixed in."""
    return torch.nn.functional.mse_loss(predicted, truth)


def relabel_loss(
    session: Session, clean: Tensor, texts: Sequence[str], *, others: Sequence[str], generator: torch.Generator
) -> Tensor:
    """How far predictions on pictures under their prompts are from those under others, through which no gradient goes.

    The mean square, of the network as it is.
    """
    noised = Noised.of(session.denoiser, clean, generator)
    with torch.no_grad():
        aim = noised.predicted(session, others)
    return torch.nn.functional.mse_loss(noised.predicted(session, texts), aim)
