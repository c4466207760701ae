"""Where a model's parts are read from: a diffusers folder, or whatever else offers the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from safetensors import SafetensorError

from erase.errors import BadModel, BadWeights
from erase.models.quiet import quietly
from erase.models.storage.weights import Tensors, Weights
from erase.models.text import Text, build_encoder, first_line

# How everything is loaded: from files that are there and hold no code.
PLAIN_DATA: Mapping[str, Any] = MappingProxyType(
    {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
)

_LIBRARIES = ("diffusers", "transformers")  # whose classes a folder may name; what else it names is not imported


class Source(Protocol):
    """A model's files, by component."""

    path: Path

    def has(self, part: str) -> bool:
        """Whether there is such a part."""

    def weights(self, component: str) -> Tensors:
        """The component's tensors under the names that diffusers gives them."""

    def tokenizer(self, text: Text) -> Any:
        """The tokenizer that belongs to a text encoder; raises BadModel."""

    def text_encoder(self, text: Text) -> Any:
        """The text encoder, ready to run; raises BadModel, BadWeights."""

    def settings(self) -> AbstractContextManager[Path]:
        """A folder with the settings and tokenizers of all parts, there for the block; raises BadModel."""

    def check_whole(self) -> None:
        """Raises BadModel if there is only what an edit needs, and not what a pipeline does."""

    def pipeline(self, name: str, dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
        """A freshly loaded pipeline of a class of diffusers; raises BadModel."""


class Folder:
    """A diffusers folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._weights: dict[str, Tensors] = {}

    def has(self, part: str) -> bool:
        return (self.path / part).is_dir()

    def index(self) -> dict[str, Any]:
        return read_json(self.path / "model_index.json")

    def weights(self, component: str) -> Tensors:
        if component not in self._weights:
            self._weights[component] = Weights(self.path / component)
        return self._weights[component]

    def tokenizer(self, text: Text) -> Any:
        import transformers

        kind = transformers.CLIPTokenizer if text.causal else transformers.T5TokenizerFast
        try:
            with quietly(both=False):
                return kind.from_pretrained(self.path / text.tokenizer, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, TypeError) as error:
            raise BadModel(f"{self.path / text.tokenizer} cannot be loaded: {first_line(error)}") from error

    def text_config(self, text: Text) -> Any:
        """A text encoder's settings; raises BadWeights."""
        import transformers

        folder, kind = self.path / text.encoder, getattr(transformers, text.kind).config_class
        try:
            return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, TypeError) as error:
            raise BadWeights(f"{folder} cannot be loaded: {first_line(error)}") from error

    def text_encoder(self, text: Text) -> Any:
        config, where = self.text_config(text), str(self.path / text.encoder)
        return build_encoder(text, config, self.weights(text.encoder), where=where)

    def settings(self) -> AbstractContextManager[Path]:
        return nullcontext(self.path)

    def check_whole(self) -> None:
        return  # its parts were looked for when the model was opened

    def pipeline(self, name: str, dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
        import diffusers

        try:
            parts = self._parts_of_variants(dtype, options)
            return getattr(diffusers, name).from_pretrained(self.path, dtype=dtype, **PLAIN_DATA, **options, **parts)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadModel(f"{self.path} cannot be loaded: {first_line(error)}") from error

    def _parts_of_variants(self, dtype: torch.dtype, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parts whose files have the names of a variant, loaded; pipelines look for plain names elsewhere."""
        parts: dict[str, Any] = {}
        for part, kind in self.index().items():
            weights = self._weights.get(part)
            if part not in given and isinstance(weights, Weights) and weights.variant and kind[0] in _LIBRARIES:
                network = getattr(import_module(kind[0]), kind[1])
                parts[part] = network.from_pretrained(
                    self.path / part, dtype=dtype, variant=weights.variant, **PLAIN_DATA
                )
        return parts


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; raises BadModel."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadModel(
            f"{path} cannot be read ({error.strerror}); expected a whole model: download it again."
        ) from error
    except ValueError as error:
        raise BadModel(f"{path} is not JSON ({error}); download the model again.") from error
    if not isinstance(content, dict):
        raise BadModel(f"{path} is not a JSON object; download the model again.")
    return content
