"""A pipeline in memory as the source of a model: its modules' weights, its tokenizers, copies of itself."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase.errors import BadModel
from erase.files import content_hash
from erase.models.quiet import quietly
from erase.models.state import check_plain
from erase.models.storage.weights import Place, Tensors, check_finite, weights_digest
from erase.models.text import Text, build_encoder


class Held(Tensors):
    """The tensors of a module in memory."""

    def __init__(self, module: torch.nn.Module, where: Path) -> None:
        self._values, self._where = dict(module.state_dict()), where

    @cached_property
    def places(self) -> Mapping[str, Place]:
        return {key: Place(self._where, key, tuple(value.shape)) for key, value in self._values.items()}

    @property
    def files(self) -> list[Path]:
        return []

    def tensors(
        self, keys: Iterable[str] | None = None, *, dtype: torch.dtype | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Copies of the tensors, on the CPU."""
        for key in sorted(self._values) if keys is None else keys:
            value = self._values[key].detach()
            check_finite(value, f"{key} in {self._where}")
            yield key, value.to("cpu", dtype or value.dtype, copy=True)

    def scale_key(self, key: str) -> str | None:
        return None

    def quantised(self) -> str:
        return ""  # what is, is refused when it is opened


class Loaded:
    """A loaded pipeline, which is never changed.

    `name`: what it is called in words. `home`: the folder that it was loaded from, where that is one: its judge and its
    presets lie there.
    Raises BadModel for a pipeline with fused layers, a LoRA, or weights that are not in memory; BadWeights for a
    quantised one.
    """

    def __init__(self, pipe: Any, *, name: str = "", home: Path | None = None) -> None:
        check_plain(pipe)
        self.pipe, self.path = pipe, Path(name or f"loaded {type(pipe).__name__}")
        self.home = home or Path(str(getattr(pipe, "name_or_path", "") or self.path))
        self._weights: dict[str, Tensors] = {}
        for name, module in self._modules.items():
            if any(value.is_meta for value in module.parameters()):
                raise BadModel(
                    f"the {name} of the {self.path} is offloaded, so its weights are not in memory; call "
                    "`pipe.remove_all_hooks()` before it is opened."
                )

    @property
    def _modules(self) -> dict[str, torch.nn.Module]:
        return {name: part for name, part in self.pipe.components.items() if isinstance(part, torch.nn.Module)}

    def has(self, part: str) -> bool:
        return getattr(self.pipe, part, None) is not None

    def weights(self, component: str) -> Tensors:
        if component not in self._weights:
            self._weights[component] = Held(self._modules[component], self.path / component)
        return self._weights[component]

    def tokenizer(self, text: Text) -> Any:
        return getattr(self.pipe, text.tokenizer)

    def text_encoder(self, text: Text) -> Any:
        """A float32 copy of a text encoder, where the pipeline's own is."""
        own, where = self._modules[text.encoder], str(self.path / text.encoder)
        copied = build_encoder(text, own.config, self.weights(text.encoder), where=where)
        return copied.to(next(own.parameters()).device)

    @contextmanager
    def settings(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            self.pipe.save_config(place)
            for name, part in self.pipe.components.items():
                if isinstance(part, torch.nn.Module):
                    save: Any = getattr(part, "save_config", None) or part.config.save_pretrained  # type: ignore[union-attr]
                    save(place / name)
                elif part is not None:
                    part.save_pretrained(place / name)
            yield place

    @contextmanager
    def saved(self) -> Iterator[Path]:
        """The whole model as a folder, there for the block."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / self.path.name.replace(" ", "-")
            with quietly():
                self.pipe.save_pretrained(place, safe_serialization=True)
            yield place

    def check_whole(self) -> None:
        return  # what a family needs was looked for when it was opened

    def pipeline(self, name: str, dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
        """A copy of the pipeline, as its family's plain one: text to image, without safety checker."""
        import diffusers

        kind = getattr(diffusers, name)
        given = {key: value for key, value in self.pipe.config.items() if not key.startswith("_")}
        parts = {key: copy.deepcopy(part) for key, part in self.pipe.components.items() if key not in options}
        parts = {
            key: part.to("cpu", dtype) if isinstance(part, torch.nn.Module) else part for key, part in parts.items()
        }
        wanted = inspect.signature(kind.__init__).parameters
        return kind(**{key: value for key, value in {**given, **parts, **options}.items() if key in wanted})

    @cached_property
    def content(self) -> str:
        """Identity of all that an image depends on."""
        parts = {name: weights_digest(sorted(part.state_dict().items())) for name, part in self._modules.items()}
        scheduler = {key: str(value) for key, value in self.pipe.scheduler.config.items()}
        return content_hash([parts, scheduler])
