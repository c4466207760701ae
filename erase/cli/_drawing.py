"""The sampler's settings as options of every command that makes images; the same names as under `generate:`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer

Settings = Mapping[str, Any]
NONE: Settings = MappingProxyType({})
_HELP: Mapping[str, tuple[type, str]] = MappingProxyType(
    {
        "steps": (int, "Sampling steps."),
        "guidance": (float, "The pipeline's guidance_scale; 0 or 1 is none."),
        "batch": (str, "Images computed at once: a number, or auto for what fits."),
        "size": (str, "Pixels, as 768, or width and height, as 1024x768; the model's own if left out."),
        "negative": (str, "A negative prompt."),
        "scheduler": (str, "Such as euler, ddim, dpmpp_2m; the model's own if left out."),
        "true_guidance": (float, "The pipeline's true_cfg_scale, of FLUX.1."),
        "max_sequence_length": (int, "Tokens that T5 reads."),
        "offload": (str, "What waits beside the card: auto, none, model or layers."),
        "clip_skip": (int, "Layers left out at the end of CLIP."),
    }
)


def draws(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each setting of the sampler; it is given those that were set as `drawing`."""
    signature = inspect.signature(command, eval_str=True)
    added = []
    for name, (kind, text) in _HELP.items():
        option = typer.Option(help=text, rich_help_panel="How images are sampled", show_default=False)
        added.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
            )
        )

    @functools.wraps(command)
    def with_settings(*inputs: Any, **named: Any) -> None:
        given = {name: named.pop(name) for name in _HELP}
        command(*inputs, **named, drawing={name: value for name, value in given.items() if value is not None})

    own = [one for one in signature.parameters.values() if one.name != "drawing"]
    with_settings.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    with_settings.__annotations__ = {one.name: one.annotation for one in [*own, *added]}
    return with_settings
