"""Image-to-image unlearning: from a part of the target's picture the network reads no more than from noise.

Paper: Li et al., "Machine Unlearning for Image-to-Image Generative Models", ICLR 2024, of models that complete a
cropped picture T(x) by an encoder E and a decoder. With the frozen encoder E_0, pictures x_f to be forgotten and x_r
that stay, and noise n of the pictures' own mean and spread,

    L = | E(T(x_r)) - E_0(T(x_r)) |^2  +  alpha | E(T(x_f)) - E_0(T(n)) |^2

Here x are latents and the network is the UNet of a diffusion model: its encoder side (all before the first layer that
goes up again) reads the noisy latent of T(x) under the picture's prompt, and E is all that it hands over, the middle's
output and what goes past it. That side alone is trained. T hides a rectangle of a drawn size and place, which is filled
with noise, as inpainting does; where nothing is hidden it is image-to-image from a whole picture.
Differences from the official code (jpmorganchase/i2l-generator-unlearning), whose models take no prompt and no noise:
- pictures are finished latents of banks, of the targets' prompts and of the keeps (of the anchors where there are none)
  instead of a data set;
- x_f is read at a drawn level of noise, and E_0(T(n)) has the same noise, level and prompt;
- each part of E weighs the same: its square distance is divided by the frozen one's mean square;
- with `aim: anchor`, ours, the aim is E_0(T(x_f)) under the same prompt with the anchor, so that what is completed is
  the anchor and not what noise is taken for;
- with `side: whole`, ours, E is all of the network, its prediction what it hands over. The paper's decoder knows no
  more than the encoder tells it; a diffusion model's reads the prompt, too, and on the embedded model draws what it is
  asked for even where it is handed what the anchor is read as. Trained as a whole it completes the target no more
  (docs/train.md has figures). Its aim is the anchor alone: what a network draws of noise is no picture to learn.
A transformer has no encoder side: `side: whole` trains it, the paper's is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import BadModel, BadOption
from erase.methods._presets import Presets, presets
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.layers import Layers
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Condition, Model
from erase.options import Count, Positive, Share
from erase.sampling.guides import hooked
from erase.task import Task

Side = Literal["encoder", "whole"]
_DECODER = ("up_blocks.", "conv_norm_out.", "conv_out.")


@dataclass(frozen=True)
class I2I(Trained):
    """Options of image-to-image unlearning, beside those of all training.

    `alpha`: of what is forgotten; more erases further and harms more. `aim`: what the target's pictures are read as,
    `noise` as in the paper, `anchor` as if the anchor had been asked for. `side`: what is trained and compared, the
    `encoder` as in the paper, or the `whole` network. `hidden`: largest share of the sides that is hidden.
    `keep_batch`: pictures of what stays in a step, from `keep_trajectories` of the bank. `layers` as in ESD, of that
    side.
    """

    # Ours: the paper's models are others, and none of its values is of a diffusion model that reads prompts.
    presets: ClassVar[Presets] = presets(
        {"steps": 500, "learning_rate": 1e-5, "batch": 4, "keep_batch": 4, "alpha": 0.25, "aim": "noise"}
        | {"side": "encoder", "hidden": 0.75, "layers": "all"}
    )

    batch: int = 4
    alpha: Positive = 0.25
    aim: Literal["noise", "anchor"] = "noise"
    side: Side = "encoder"
    hidden: Share = 0.75
    keep_batch: Count = 4
    keep_trajectories: Count = 16
    layers: Layers = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side == "whole" and self.aim == "noise":
            raise BadOption(
                'side "whole" goes with aim "anchor"; got aim "noise", which the encoder side alone can learn.'
            )

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        denoiser, side = session.denoiser, self.side
        if side == "encoder" and not hasattr(denoiser.network, "mid_block"):
            raise BadModel(
                f"i2i needs a UNet's encoder side, which {model.family} lacks; try side: whole with aim: anchor."
            )
        becomes = dict(session.asked)
        forget = session.bank(session.plan((target, ()) for target in becomes))
        kept = session.kept_bank(becomes.values(), self.keep_trajectories)
        parameters = encoder_side(session, self.layers) if side == "encoder" else session.chosen(self.layers)
        before = {name: value.detach().clone() for name, value in parameters.items()}

        def loss(step: int, generator: torch.Generator) -> Tensor:
            (clean, texts), (stays, named) = (
                bank.draw_clean(count, generator) for bank, count in ((forget, self.batch), (kept, self.keep_batch))
            )
            seen, asked = hide(torch.cat([clean, stays]), self.hidden, generator), [*texts, *named]
            times = torch.randint(denoiser.times, (len(seen),), generator=generator)
            noise = torch.randn(seen.shape, generator=generator)
            if self.aim == "noise":
                known = like_noise(clean, generator)
                aims, others = torch.cat([known, seen[self.batch :]]), asked
            else:
                aims, others = seen, [*(becomes[text] for text in texts), *named]
            with torch.no_grad(), session.holding(parameters, before):
                frozen = read(denoiser, (aims, noise), times, given=session.given(others), side=side)
            now = read(denoiser, (seen, noise), times, given=session.given(asked), side=side)
            return i2i_loss(now, frozen, forgotten=self.batch, alpha=self.alpha)

        session.train(parameters, loss)
        return session.edit(deltas=session.deltas(parameters))


def read(
    denoiser: Denoiser, mixed: tuple[Tensor, Tensor], times: Tensor, *, given: Condition, side: Side
) -> list[Tensor]:
    """E of clean latents mixed with noise at times: what the encoder side hands over, or the whole's prediction."""
    noisy = denoiser.level(times).noisy(*mixed)
    if side == "whole":
        return [denoiser.predict(noisy, times, given)]
    with encoded(denoiser.network) as parts:
        denoiser.predict(noisy, times, given)
    return parts


def encoder_side(session: Session, layers: Layers) -> dict[str, Any]:
    """The trained weights of a choice that stand before the layers that go up; the others are frozen again."""
    found = session.chosen(layers)
    for name in [name for name in found if name.startswith(_DECODER)]:
        found.pop(name).requires_grad_(False)
    if not found:
        raise BadModel(f'layers "{layers}" names no layer of the encoder side; choose other layers.')
    return found


@contextlib.contextmanager
def encoded(network: nn.Module) -> Iterator[list[Tensor]]:
    """What the encoder side hands over in a call of the network within the block: what goes past, then the middle."""
    parts: list[Tensor] = []

    def note(module: Any, inputs: Any, output: Any) -> Any:
        parts.extend(output[1] if isinstance(output, tuple) else [output])
        return output

    blocks: Any = network
    with hooked((block, note) for block in (*blocks.down_blocks, blocks.mid_block)):
        yield parts


def hide(clean: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Latents [count, ...] with a rectangle each, of a drawn place and of sides up to a share of theirs, of noise."""
    noise, hidden = like_noise(clean, generator), torch.ones(len(clean), 1, 1, 1, dtype=torch.bool)
    for number, size in ((-2, clean.shape[-2]), (-1, clean.shape[-1])):
        long = (torch.rand(len(clean), generator=generator) * share * size).round()
        first = (torch.rand(len(clean), generator=generator) * (size - long + 1)).floor()
        at = torch.arange(size)
        within = (at >= first[:, None]) & (at < (first + long)[:, None])
        hidden = hidden & (within[:, None, :, None] if number == -2 else within[:, None, None, :])
    return torch.where(hidden, noise, clean)


def like_noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of the mean and spread that each channel of the latents has."""
    mean, spread = clean.mean((0, 2, 3), keepdim=True), clean.std((0, 2, 3), keepdim=True)
    return mean + spread * torch.randn(clean.shape, generator=generator)


def i2i_loss(now: Sequence[Tensor], frozen: Sequence[Tensor], *, forgotten: int, alpha: float) -> Tensor:
    """The loss of what stays and alpha times that of the first rows, which are forgotten, as the mean over all parts.

    Each part [rows, ...] is measured against the frozen one's mean square.
    """
    losses = []
    for one, other in zip(now, frozen, strict=True):
        far = (one - other).square().flatten(1).mean(1) / other.square().mean()
        losses.append(far[forgotten:].mean() + alpha * far[:forgotten].mean())
    return torch.stack(losses).mean()
