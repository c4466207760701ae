"""One batch of images by the diffusers pipeline of the model's family: with its scheduler, or another that is named.

A method that acts while sampling stands between the pipeline and its network: the pipeline takes its steps as without
guidance, and each prediction that it asks for is the one that the method makes of several.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from erase.config.prompts import Row
from erase.models import Condition, Guidance, family_of_pipe
from erase.sampling.guides import Guide, GuidedBatch, NoGuide, PromptBatch
from erase.sampling.sampler import Sampler
from erase.sampling.schedulers import scheduled

# Where networks are given a prompt's token states and its pooled ones, and what else they are given for each row.
STATES, POOLED = "encoder_hidden_states", ("text_embeds", "pooled_projections")
PER_ROW = ("hidden_states", "timestep", "guidance", "timestep_cond", "time_ids")
Output = Literal["pt", "latent"]
Conditions = Mapping[str | None, Condition]


@torch.inference_mode()
def sample_batch(
    pipe: Any,
    rows: Sequence[Row],
    *,
    conditions: Conditions,
    sampler: Sampler,
    guide: Guide | None = None,
    output: Output = "pt",
) -> Tensor:
    """Pixels of the rows, [rows, 3, height, width] in 0 .. 1, or their latents as the pipeline gives them.

    Each row has a generator of its own. `conditions`: of each prompt, and under None of what guidance starts from.
    Raises BadOption for what the family's pipeline cannot do.
    """
    family, guide = family_of_pipe(pipe), guide or NoGuide()
    network = getattr(pipe, family.backbone)
    device = pipe._execution_device  # also of a pipeline whose networks are offloaded
    given = Condition.stack([conditions[row.prompt] for row in rows]).to(device, network.dtype)
    empty = Condition.stack([conditions[None]] * len(rows)).to(device, network.dtype)
    guidance = Guidance(sampler.guidance, sampler.true_guidance, bool(sampler.negative))
    acts = type(guide) is not NoGuide
    arguments = family.call_arguments((given, empty), guidance, alone=acts)
    with contextlib.ExitStack() as stack:
        stack.enter_context(scheduled(pipe, sampler.scheduler))
        stack.enter_context(warnings.catch_warnings())  # of what SDXL's own pipeline does for its decoder in float16
        warnings.filterwarnings("ignore", message="`upcast_vae` is deprecated")
        if acts:
            prompts = tuple(row.prompt for row in rows)
            scale = guidance.true_scale if family.true_cfg else guidance.scale
            batch = PromptBatch(prompts, given.to(device), empty.to(device), scale)
            stack.enter_context(_answered(network, guide.begin(pipe, batch)))
        drawn: Tensor = pipe(
            **arguments,
            **sampler.sides,
            num_inference_steps=sampler.steps,
            generator=[torch.Generator("cpu").manual_seed(row.seed) for row in rows],
            output_type=output,
        ).images
    return drawn.float()


@contextlib.contextmanager
def _answered(network: Any, guided: GuidedBatch) -> Iterator[None]:
    """The network with what a method makes of its predictions in place of them, until the block ends."""
    forward, steps = network.forward, count()

    def answer(*inputs: Any, return_dict: bool = True, **named: Any) -> Any:
        def ask(conditions: Sequence[Condition]) -> Sequence[Tensor]:
            times, kind = len(conditions), network.dtype
            fixed = {STATES: torch.cat([one.states for one in conditions]).to(kind)}
            if pooled := [one.pooled for one in conditions if one.pooled is not None]:
                fixed |= dict.fromkeys(POOLED, torch.cat(pooled).to(kind))
            first = [torch.cat([one] * times) for one in inputs[:1]]
            found: Tensor = forward(*first, *inputs[1:], return_dict=False, **_repeated(named, times, fixed))[0]
            return found.float().chunk(times)

        made = guided.predict(ask, next(steps)).to(network.dtype)
        return (made,)

    hooked = "forward" in vars(network)  # by whoever offloads it
    network.forward = answer
    try:
        yield
    finally:
        if hooked:
            network.forward = forward
        else:
            del network.forward


def _repeated(named: Mapping[str, Any], times: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A network's arguments for several predictions of each row at once; `fixed` takes the place of what it names."""
    made = {}
    for name, value in named.items():
        if name in fixed:
            made[name] = fixed[name]
        elif isinstance(value, Mapping):
            made[name] = _repeated(value, times, fixed)
        elif name in PER_ROW and isinstance(value, Tensor) and value.dim():
            made[name] = torch.cat([value] * times)
        else:
            made[name] = value
    return made
