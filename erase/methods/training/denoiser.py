"""The network that trained methods ask and train: the one place where it is called.

Predictions come back to where their inputs are, so that banks, draws and losses stay on the CPU; the network alone is
on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from erase.errors import BadModel
from erase.methods.training.distributed import Machine
from erase.methods.training.parameterization import SPACES, NoiseLevel, Space, prediction_of
from erase.models import Condition, Model
from erase.models.storage.weights import content_digest

Sampling = Literal["ddim", "own"]
Precision = Literal["float32", "bfloat16"]


@dataclass
class Denoiser:
    """A model's network, its noise schedule, maybe its text encoder; other parts are not loaded.

    `forward` is the family's way to ask the network, `shape` of a latent: channels, height, width. `evaluations` counts
    samples through the network, three for each that is trained through: a backward pass costs two. `precision`: of the
    computation and of frozen matrices; whatever is trained is in float32.
    """

    component: str
    network: Any
    scheduler: Any
    forward: Callable[..., Tensor]
    shape: tuple[int, int, int]
    text_encoder: Any = None
    precision: Precision = "float32"
    machine: Machine = field(default_factory=Machine.here)
    evaluations: int = 0
    _offloaded: str = ""  # the digest of the network's weights, which wait elsewhere

    @staticmethod
    def of(
        model: Model,
        *,
        text_encoder: bool = False,
        size: int = 0,
        precision: Precision = "float32",
        offload: bool = False,
    ) -> Denoiser:
        """The frozen network of a model on the machine's device, and its text encoder where that is asked for.

        `size` in pixels, 0 for the model's own. `offload`: weights wait on the CPU and come to the device layer by
        layer. Raises BadOption for a size that the model cannot draw.
        """
        pipe = model.backbone_alone(torch.float32 if precision == "float32" else torch.bfloat16)
        made = Denoiser.from_pipe(model, pipe, size=size, precision=precision, offload=offload)
        if text_encoder:
            made.text_encoder = model.source.text_encoder(model.texts[0]).to(made.machine.device)
        return made

    @staticmethod
    def from_pipe(
        model: Model, pipe: Any, *, size: int = 0, precision: Precision = "float32", offload: bool = False
    ) -> Denoiser:
        """The network of a loaded pipeline of a model; its norms and biases are in float32, whatever the precision."""
        network = getattr(pipe, model.backbone).requires_grad_(False).eval()
        for name in _vectors(network) if precision != "float32" else ():  # they weigh nothing and lose most
            network.get_parameter(name).data = model.weight(f"{model.backbone}.{name}").float()
        parts = SimpleNamespace(**{model.backbone: network, "vae_scale_factor": pipe.vae_scale_factor})
        forward, shape = partial(type(model).predict, parts), model.latent_shape(pipe, size)
        made = Denoiser(model.backbone, network, pipe.scheduler, forward, shape, precision=precision)
        made._place(offload=offload)
        return made

    def _place(self, *, offload: bool) -> None:
        """Moves the network to the device; of layers that are to be offloaded only what is computed with right now."""
        if offload:
            from accelerate import cpu_offload

            self._offloaded = self.digest()
            for module in self.network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    cpu_offload(module, execution_device=self.machine.device)
        for module in self.network.modules():
            for parameter in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                if not parameter.is_meta:
                    parameter.data = parameter.data.to(self.machine.device)

    def keep_on_device(self, parameters: Iterable[str]) -> None:
        """Makes layers stay on the device for good, if they were offloaded: what is trained or written to."""
        if self._offloaded:
            from accelerate.hooks import remove_hook_from_module

            for name in dict.fromkeys(name.rpartition(".")[0] for name in parameters):
                module = self.network.get_submodule(name)
                remove_hook_from_module(module)
                module.to(self.machine.device)

    def digest(self) -> str:
        """A hash of the network's weights."""
        return self._offloaded or content_digest(sorted(self.network.state_dict().items()))

    def predict(self, inputs: Tensor, times: Tensor, given: Condition) -> Tensor:
        """What the network predicts for noisy latents [samples, ...] at times [samples] under prompts' conditions."""
        self.evaluations += len(inputs) * (3 if torch.is_grad_enabled() else 1)
        device = self.machine.device

        def compute(rows: slice) -> Tensor:
            pooled = None if given.pooled is None else given.pooled[rows]
            condition = Condition(given.states[rows], pooled).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision != "float32"):
                predicted = self.forward(inputs[rows].to(device), times[rows].to(device), condition=condition)
            return predicted.float()

        return self.machine.rows(len(inputs), compute).to(inputs.device)

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

    def level(self, times: Tensor) -> NoiseLevel:
        """The noise levels of times [samples], to broadcast over latents."""
        if self.space == "flow":
            sigma = (times.float() / self.times).view(-1, 1, 1, 1)
            return NoiseLevel(1 - sigma, sigma)
        kept = self.scheduler.alphas_cumprod[times.long()].view(-1, 1, 1, 1)
        return NoiseLevel(kept.sqrt(), (1 - kept).sqrt())

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


def _vectors(network: nn.Module) -> list[str]:
    """Names of norms' weights and of biases, but for norms that want to be of their inputs' precision."""
    return [
        f"{name}.{key}"
        for name, module in network.named_modules()
        for key, parameter in module.named_parameters(recurse=False)
        if parameter.dim() < 2 and name and not isinstance(module, nn.RMSNorm)
    ]
