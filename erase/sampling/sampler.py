"""How an image is sampled: everything besides model, edit, prompt and seed that it depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from erase.errors import BadOption


@dataclass(frozen=True)
class Sampler:
    """Sampling settings.

    `steps`: more takes longer and draws finer. `guidance`: more follows the prompt closer (1 is none).
    `batch`: images computed at once; always that many, the last batch being filled up, so that an image has the same
    bits whatever it is computed beside. Another `batch` rounds otherwise, by 1 of 255 in a few pixels at most.
    `attention`: sdpa, torch's own; or xformers on CUDA, which rounds otherwise.
    """

    steps: int = 25
    guidance: float = 4.0
    scheduler: str = "ddim"
    batch: int = 32
    attention: str = "sdpa"

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise BadOption(f"sampler: {name} is {getattr(self, name)}; expected 1 or more.")
        if self.batch > 4096:
            raise BadOption(f"sampler: batch is {self.batch}; expected at most 4096 images at once.")
        if self.steps > 1000:
            raise BadOption(
                f"sampler: steps is {self.steps}; expected at most 1000, the steps the model was trained on."
            )
        if not 1.0 <= self.guidance <= 100.0:
            raise BadOption(f"sampler: guidance is {self.guidance}; expected 1 (none) to 100.")
        if self.scheduler != "ddim":
            raise BadOption(
                f'sampler: scheduler is "{self.scheduler}"; expected ddim, which draws no noise of its own.'
            )

    @property
    def settings(self) -> dict[str, object]:
        """What an image depends on."""
        return {key: value for key, value in asdict(self).items() if key != "batch"}
