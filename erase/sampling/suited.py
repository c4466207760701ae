"""Which sampling settings a model's pipeline takes, told by its files before anything is loaded or made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from erase.errors import BadOption
from erase.models import Model, settings_in
from erase.sampling.sampler import Sampler
from erase.sampling.schedulers import check_scheduler


def check_suited(model: Model, sampler: Sampler) -> None:
    """Raises BadOption for the first setting that the model's pipeline does not take; BadModel."""
    with model.source.settings() as folder:
        network = settings_in(folder / model.backbone / "config.json")
        decoder = settings_in(folder / "vae" / "config.json")
        scheduler = settings_in(folder / "scheduler" / "scheduler_config.json")
    check_scheduler(scheduler, sampler.scheduler)
    scale = 2 ** (len(decoder["block_out_channels"]) - 1)
    for said in (*_of_size(model, sampler, network, scale=scale), *_of_guidance(model, sampler, network)):
        raise BadOption(f"sampler: {said}")


def _of_size(model: Model, sampler: Sampler, network: dict[str, Any], *, scale: int) -> Iterator[str]:
    step = model.size_step(scale, network)
    for name, side in sampler.sides.items():
        if side % step:
            near = max(step, round(side / step) * step)
            yield f"{name} is {side} pixels; {model.family} takes multiples of {step}, such as {near}."
        most = int(network.get("pos_embed_max_size") or 0) * int(network.get("patch_size") or 1) * scale
        if 0 < most < side:
            yield f"{name} is {side} pixels; {model.path.name} takes at most {most}."


def _of_guidance(model: Model, sampler: Sampler, network: dict[str, Any]) -> Iterator[str]:
    if sampler.true_guidance > 1 and not model.true_cfg:
        yield f"true_guidance is for guidance-distilled models such as FLUX.1, and {model.path.name} is none."
    distilled = network.get("time_cond_proj_dim") is not None  # as those of latent consistency are
    scale = sampler.true_guidance if model.true_cfg else sampler.guidance
    if sampler.negative and distilled:
        yield f"{model.path.name} is distilled to one prediction a step, which a negative prompt has no part in."
    if sampler.negative and scale <= 1:
        name = "true_guidance" if model.true_cfg else "guidance"
        yield f"a negative prompt acts through {name}, which is {scale:g}: give more than 1, or leave it out."
    reads_t5 = any(not text.causal for text in type(model).texts)
    if sampler.max_sequence_length and not reads_t5:
        yield f"max_sequence_length is for models that read T5, and {model.path.name} does not."
    if sampler.clip_skip and not model.takes_clip_skip:
        yield f"clip_skip is for models that read CLIP's token states, and {model.path.name} reads none."
