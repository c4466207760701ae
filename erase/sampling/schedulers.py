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

_SHARED_NOISE = ("DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler")  # of one generator for all


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


def check_scheduler(own: Mapping[str, Any], name: str) -> None:
    """Raises BadOption if a model with these settings of its own scheduler cannot be sampled by one of a name.

    Nor by its own, where that draws noise for which no image has a generator: then an image depends on its neighbours.
    """
    kind, known = str(own.get("_class_name")), names_for(own)
    if name and name not in known:
        raise BadOption(f'sampler: scheduler "{name}" is not for this model; expected one of {", ".join(known)}.')
    if not name and (kind in _SHARED_NOISE or own.get("stochastic_sampling")):
        raise BadOption(
            f"the model's own {kind} draws noise that images beside each other share; name another: {', '.join(known)}."
        )


def names_for(own: Mapping[str, Any]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """The schedulers that suit a model, by the settings of its own: of flow matching, or of diffusion."""
    flows = "FlowMatch" in str(own.get("_class_name")) or own.get("prediction_type") == "flow_prediction"
    return FLOW if flows else DIFFUSION


def scheduler_of(own: Any, name: str) -> Any:
    """A fresh scheduler of a name with the settings of a model's own; raises BadOption."""
    import diffusers

    if not name:
        return type(own).from_config(own.config)
    config = {**own.config, "_class_name": type(own).__name__}
    check_scheduler(config, name)
    kind, settings = names_for(config)[name]
    # Settings that say nothing of clipping mean none; DDIM by itself would clip latents, which are no pixels.
    if name == "ddim":
        settings = {"clip_sample": own.config.get("clip_sample", False)}
    return getattr(diffusers, kind).from_config(own.config, **settings)
