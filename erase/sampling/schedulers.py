"""Schedulers by name, each with the settings of the model's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from erase.errors import BadOption

# The names by which people know them: the class in diffusers, and settings that make it the one that is meant.
DIFFUSION: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "ddim": ("DDIMScheduler", {}),
        "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
        "euler": ("EulerDiscreteScheduler", {}),
        "euler_a": ("EulerAncestralDiscreteScheduler", {}),
        "heun": ("HeunDiscreteScheduler", {}),
        "lms": ("LMSDiscreteScheduler", {}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        "unipc": ("UniPCMultistepScheduler", {}),
        "lcm": ("LCMScheduler", {}),
        "tcd": ("TCDScheduler", {}),
    }
)
_FLOWS: Mapping[str, Any] = MappingProxyType({"prediction_type": "flow_prediction", "use_flow_sigmas": True})
FLOW: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "euler": ("FlowMatchEulerDiscreteScheduler", {}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", _FLOWS),
        "unipc": ("UniPCMultistepScheduler", _FLOWS),
    }
)


@contextlib.contextmanager
def scheduled(pipe: Any, name: str) -> Iterator[None]:
    """The pipeline with a scheduler of a name, or a fresh one of its own for no name, until the block ends.

    Raises BadOption for one that the model was not trained for.
    """
    own = pipe.scheduler
    pipe.scheduler = scheduler_of(own, name)
    try:
        yield
    finally:
        pipe.scheduler = own


def scheduler_of(own: Any, name: str) -> Any:
    """A fresh scheduler of a name with the settings of a model's own; raises BadOption."""
    import diffusers

    if not name:
        return type(own).from_config(own.config)
    flows = "FlowMatch" in type(own).__name__
    if name not in (known := FLOW if flows else DIFFUSION):
        raise BadOption(f'sampler: scheduler "{name}" is not for this model; expected one of {", ".join(known)}.')
    kind, settings = known[name]
    # Settings that say nothing of clipping mean none; DDIM by itself would clip latents, which are no pixels.
    if name == "ddim":
        settings = {"clip_sample": own.config.get("clip_sample", False)}
    return getattr(diffusers, kind).from_config(own.config, **settings)
