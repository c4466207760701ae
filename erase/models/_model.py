"""The one view that methods, evaluation and export have of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from erase.errors import PromptTooLong
from erase.files import content_hash, sha256_of
from erase.models._weights import Weights, content_digest

Role = Literal["key", "value", "embed"]
Reads = Literal["tokens", "pooled", "stream"]
_NO_PART = (".", "judge/", "safety_checker/", "feature_extractor/")  # folders that draw nothing


@dataclass(frozen=True)
class Site:
    """A weight that the prompt reaches: `unet.<module>.weight`, of `rows` outputs and `columns` inputs.

    `reads` tells what it is multiplied with: the prompt's token states, its pooled state, or a mixed stream.
    """

    name: str
    role: Role
    reads: Reads
    rows: int
    columns: int

    @property
    def component(self) -> str:
        return self.name.partition(".")[0]

    @property
    def key(self) -> str:
        return self.name.partition(".")[2]


@dataclass(frozen=True)
class Encoding:
    """Prompts as the model's cross-attention sees them.

    `states` [prompts, tokens, width] float32; `ids` [prompts, tokens]; `lengths` [prompts] counts the start token, the
    words' tokens and the first end token, so the last word's token is at `lengths - 2`.
    """

    states: Tensor
    ids: Tensor
    lengths: Tensor


class Model(ABC):
    """A diffusers folder: its sites and text encoder read lazily, its pipeline loaded only when asked for."""

    family: str

    def __init__(self, path: Path) -> None:
        self.path = path
        self._weights: dict[str, Weights] = {}

    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """All weights that the prompt reaches, sorted by name."""

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Tokens of the longest prompt, start and end included."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Encoding:
        """The prompts' token states; raises PromptTooLong."""

    @abstractmethod
    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, start and end included, before anything is cut off."""

    @abstractmethod
    def pipeline(self, dtype: torch.dtype = torch.float32) -> Any:
        """A freshly loaded diffusers pipeline without safety checker; raises BadWeights."""

    @property
    @abstractmethod
    def text_components(self) -> tuple[str, ...]:
        """Folders of the text encoders."""

    def weights(self, component: str) -> Weights:
        if component not in self._weights:
            self._weights[component] = Weights(self.path / component)
        return self._weights[component]

    def weight(self, name: str) -> Tensor:
        """One tensor by its name with the component in front, in the file's own dtype."""
        component, _, key = name.partition(".")
        return self.weights(component).tensor(key)

    @property
    def judge_folder(self) -> Path | None:
        """The folder of the judge that comes with an embedded model."""
        folder = self.path / "judge"
        return folder if folder.is_dir() else None

    @cached_property
    def fingerprint(self) -> str:
        """Identity of what an edit depends on: a hash over the text encoders' and the sites' values."""
        named = [(site.name, self.weight(site.name)) for site in self.sites()]
        for component in self.text_components:
            weights = self.weights(component)
            keys = [key for key in weights.where if not key.endswith("position_ids")]
            named += [(f"{component}.{canonical(key)}", value) for key, value in weights.tensors(keys)]
        return content_digest(sorted(named, key=lambda pair: pair[0]))

    @cached_property
    def content(self) -> str:
        """Identity of all that an image depends on: a hash over every file of the model's parts."""
        files = [file for part in self.path.iterdir() if part.is_dir() for file in part.rglob("*")]
        parts = {file.relative_to(self.path).as_posix(): file for file in files if file.is_file()}
        return content_hash({name: sha256_of(parts[name]) for name in sorted(parts) if not name.startswith(_NO_PART)})

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raises PromptTooLong for the first prompt that the text encoder would cut."""
        for prompt in dict.fromkeys(prompts):
            if (count := self.count_tokens(prompt)) > self.max_tokens:
                raise PromptTooLong(
                    f'prompt "{prompt[:80]}{"..." if len(prompt) > 80 else ""}" has {count - 2} tokens; '
                    f"{self.path.name} takes at most {self.max_tokens - 2}: shorten it."
                )


def canonical(key: str) -> str:
    """A text encoder's key without the prefix that some versions of transformers write and others do not."""
    return key.removeprefix("text_model.")
