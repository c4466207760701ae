"""How an image is sampled: everything besides model, edit, prompt and seed that it depends on."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from erase.errors import BadOption

SCHEDULERS = (
    "ddim",
    "pndm",
    "euler",
    "euler_a",
    "heun",
    "lms",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "unipc",
    "lcm",
    "tcd",
)
OFFLOADS = ("auto", "none", "model", "layers")
_SIZE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?")
_ALWAYS = ("steps", "guidance", "scheduler", "attention")  # named with an image whatever they are
_NEVER = ("batch", "offload")  # which change no image


@dataclass(frozen=True)
class Sampler:
    """Sampling settings, which are those of the family's diffusers pipeline.

    `steps`: more takes longer and draws finer. `guidance`: the pipeline's `guidance_scale`; more follows the prompt
    closer (0 and 1 are none). `true_guidance`: its `true_cfg_scale`, of a guidance-distilled model such as FLUX.1 (1 is
    none). `negative`: a negative prompt. `size`: of the pictures in pixels, as 768 or 1024x768 (width x height); 0 for
    the model's own. `scheduler`: a name of SCHEDULERS; the model's own where it is empty. `max_sequence_length`: tokens
    that T5 is given; 0 for the pipeline's own number. `clip_skip`: layers left out at the end of CLIP.
    `batch`: images computed at once. A number is always that many, the last batch being filled up, so that an image has
    the same bits whatever it is computed beside; another `batch` rounds otherwise, by 1 of 255 in a few pixels at most.
    `auto` is 32 for small models on the CPU, and what fits for others. `offload`: what waits beside the device for its
    turn: `model` whole networks, `layers` single layers, `none` nothing, `auto` what does not fit.
    `attention`: sdpa, torch's own; or xformers on CUDA, which rounds otherwise.
    """

    steps: int = 25
    guidance: float = 4.0
    scheduler: str = ""
    batch: int | str = "auto"
    attention: str = "sdpa"
    size: int | str = 0
    negative: str = ""
    true_guidance: float = 1.0
    max_sequence_length: int = 0
    clip_skip: int = 0
    offload: str = "auto"

    def __post_init__(self) -> None:
        for name, least, most in (
            ("steps", 1, 1000),
            ("guidance", 0, 100),
            ("true_guidance", 1, 100),
            ("max_sequence_length", 0, 512),
            ("clip_skip", 0, 32),
        ):
            if not least <= getattr(self, name) <= most:
                raise BadOption(f"sampler: {name} is {getattr(self, name)}; expected {least} to {most}.")
        if self.batch != "auto" and not (str(self.batch).isdigit() and 1 <= int(self.batch) <= 4096):
            raise BadOption(f"sampler: batch is {self.batch}; expected auto, or 1 to 4096.")
        if self.offload not in OFFLOADS:
            raise BadOption(f'sampler: offload is "{self.offload}"; expected one of {", ".join(OFFLOADS)}.')
        if self.scheduler not in ("", *SCHEDULERS):
            raise BadOption(
                f'sampler: scheduler is "{self.scheduler}"; expected one of {", ".join(SCHEDULERS)}, '
                "or nothing for the model's own."
            )
        if not _SIZE.fullmatch(str(self.size)):
            raise BadOption(
                f'sampler: size is "{self.size}"; expected pixels, such as 768, or width and height: 1024x768.'
            )

    @property
    def settings(self) -> dict[str, object]:
        """What an image depends on."""
        own = {one.name: one.default for one in fields(self)}
        said = asdict(self) | ({"size": int(self.size)} if str(self.size).isdigit() else {})  # as a text or a number
        return {
            key: value for key, value in said.items() if key in _ALWAYS or (key not in _NEVER and value != own[key])
        }

    @property
    def evaluations(self) -> int:
        """How often the network is asked for one image."""
        return self.steps * (2 if self.guidance > 1 else 1)

    @property
    def encoding(self) -> dict[str, Any]:
        """The settings that say how prompts are encoded."""
        return {name: getattr(self, name) for name in ("negative", "max_sequence_length", "clip_skip")}

    @property
    def sides(self) -> dict[str, int]:
        """Height and width by name; none where they are the model's own."""
        found = _SIZE.fullmatch(str(self.size))
        width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        return {"height": height, "width": width} if width and height else {}
