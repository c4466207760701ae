"""Stable Diffusion 1.x: one CLIP text encoder, whose token states every `attn2` of the UNet reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from erase.errors import BadModel, BadWeights
from erase.models._model import Encoding, Model, Role, Site
from erase.models._weights import check_finite

_SITE = re.compile(r".*\battn2\.to_(?P<role>[kv])\.weight")
_PARTS = ("unet", "text_encoder", "tokenizer", "vae", "scheduler")
_ENCODE_AT_ONCE = 64  # prompts


class StableDiffusion(Model):
    """A `StableDiffusionPipeline` folder."""

    family = "stable-diffusion"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        missing = [part for part in _PARTS if not (path / part).is_dir()]
        if missing:
            raise BadModel(f"{path} has no {missing[0]} folder; expected a whole model: {', '.join(_PARTS)}.")

    @property
    def text_components(self) -> tuple[str, ...]:
        return ("text_encoder",)

    @property
    def max_tokens(self) -> int:
        return int(self._tokenizer.model_max_length)

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        weights, found = self.weights("unet"), []
        for key in sorted(weights.where):
            if match := _SITE.fullmatch(key):
                rows, columns = weights.shape(key)
                role: Role = "key" if match["role"] == "k" else "value"
                found.append(Site(f"unet.{key}", role, "tokens", rows, columns))
        if not found:
            raise BadModel(f"{self.path / 'unet'} has no cross-attention (attn2.to_k, attn2.to_v); nothing to edit.")
        return tuple(found)

    def sites(self) -> tuple[Site, ...]:
        return self._sites

    def count_tokens(self, prompt: str) -> int:
        return len(self._tokenizer(prompt, verbose=False)["input_ids"])

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> Encoding:
        self.check_prompts(prompts)
        tokens = self._tokenizer(list(prompts), padding="max_length", return_tensors="pt")
        parts = tokens["input_ids"].split(_ENCODE_AT_ONCE)
        states = torch.cat([self._text_encoder(part).last_hidden_state for part in parts])
        return Encoding(states.float().clone(), tokens["input_ids"], tokens["attention_mask"].sum(1))

    def pipeline(self, dtype: torch.dtype = torch.float32) -> Any:
        from diffusers import StableDiffusionPipeline

        for component in ("unet", "text_encoder", "vae"):
            _ = self.weights(component).where
        try:
            pipe = StableDiffusionPipeline.from_pretrained(
                self.path, dtype=dtype, local_files_only=True, safety_checker=None, requires_safety_checker=False
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadModel(f"{self.path} cannot be loaded: {_first_line(error)}") from error
        for component in ("unet", "text_encoder", "vae"):
            for name, parameter in getattr(pipe, component).named_parameters():
                check_finite(parameter, f"{name} in {self.path / component}")
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        try:
            return CLIPTokenizer.from_pretrained(self.path / "tokenizer", local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise BadModel(f"{self.path / 'tokenizer'} cannot be loaded: {_first_line(error)}") from error

    @cached_property
    def _text_encoder(self) -> Any:
        from transformers import CLIPTextModel

        for _ in self.weights("text_encoder").tensors():  # each is checked to be whole and finite
            pass
        try:
            encoder = CLIPTextModel.from_pretrained(
                self.path / "text_encoder", dtype=torch.float32, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadWeights(f"{self.path / 'text_encoder'} cannot be loaded: {_first_line(error)}") from error
        return encoder.eval()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
