"""The keys of a pipeline and of a protocol that say how images are sampled."""

from __future__ import annotations

from typing import Any

from erase.config.documents import Form


class DrawingForm(Form):
    """Settings of the sampler; see `erase.sampling.sampler.Sampler`."""

    steps: int = 25
    guidance: float = 4.0
    batch: int | str = "auto"
    size: int | str = 0
    negative: str = ""
    scheduler: str = ""
    true_guidance: float = 1.0
    max_sequence_length: int = 0
    clip_skip: int = 0
    offload: str = "auto"

    @property
    def drawing(self) -> dict[str, Any]:
        """The settings of the sampler alone."""
        return self.model_dump(include=set(DrawingForm.model_fields))


# What recipes and protocols of older versions do not name, and what it is where it is left out.
LATER = {
    name: field.default
    for name, field in DrawingForm.model_fields.items()
    if name not in ("steps", "guidance", "batch")
}
