"""Single-file checkpoints (SD 1.x, 2.x and XL) as sources of the same tensors that a diffusers folder holds.

Edits are made and named as for the folder, so an edit made on one fits the other. A checkpoint holds no settings:
those of the text encoders follow from the tensors' shapes and the family, their tokenizer is CLIP's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from erase.errors import BadModel
from erase.models._clip_tokens import VOCABULARY, clip_tokenizer
from erase.models._ldm import UNET, clip_places, open_clip_layers, open_clip_places, unet_places
from erase.models._model import Model
from erase.models._text import Text, build_encoder
from erase.models._weights import Place, Tensors, shapes_in
from erase.models.stable_diffusion import StableDiffusion
from erase.models.stable_diffusion_2 import StableDiffusion2
from erase.models.stable_diffusion_xl import StableDiffusionXL

_HEAD = 64  # columns of an attention head in every CLIP that the families use


@dataclass(frozen=True)
class Inner:
    """A text encoder inside a checkpoint: where it begins, whether it is OpenCLIP's, and how many layers go unused."""

    prefix: str
    open_clip: bool = False
    unused: int = 0


@dataclass(frozen=True)
class Layout:
    """How a family's checkpoints are recognised and where their text encoders lie."""

    family: type[Model]
    marks: tuple[str, ...]
    texts: Mapping[str, Inner]


_XL_1, _XL_2 = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
_SD_1, _SD_2 = "cond_stage_model.transformer.", "cond_stage_model.model."
LAYOUTS = (
    Layout(StableDiffusionXL, (_XL_1, _XL_2), {"text_encoder": Inner(_XL_1), "text_encoder_2": Inner(_XL_2, True)}),
    Layout(StableDiffusion2, (_SD_2,), {"text_encoder": Inner(_SD_2, True, unused=1)}),
    Layout(StableDiffusion, (_SD_1,), {"text_encoder": Inner(_SD_1)}),
)
# What else a file can be, told by how a key of it begins.
_STRANGERS = {
    "model.diffusion_model.joint_blocks.": "a Stable Diffusion 3 checkpoint",
    "joint_blocks.": "a Stable Diffusion 3 transformer",
    "model.diffusion_model.double_blocks.": "a FLUX checkpoint",
    "double_blocks.": "a FLUX transformer",
    "conditioner.embedders.0.model.": "the refiner of Stable Diffusion XL",
    "lora_": "a LoRA",
    "text_map.": "an edit",
    "delta.": "an edit",
    "down_blocks.": "a UNet of a diffusers folder",
    UNET: "a UNet without its text encoders",
}


class Checkpoint:
    """A single-file checkpoint of a known layout."""

    def __init__(self, path: Path, layout: Layout, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.path, self._layout, self._shapes = path, layout, shapes

    def has(self, part: str) -> bool:
        """Whether there is such a part; tokenizers and the scheduler are never stored, and never missing."""
        if part == "unet":
            return any(key.startswith(UNET) for key in self._shapes)
        inner = self._layout.texts.get(part)
        return inner is None or any(key.startswith(inner.prefix) for key in self._shapes)

    @cached_property
    def _parts(self) -> dict[str, Tensors]:
        found = {"unet": unet_places(self.path, self._shapes)}
        for name, inner in self._layout.texts.items():
            if inner.open_clip:
                layers = open_clip_layers(self._shapes, prefix=inner.prefix) - inner.unused
                found[name] = open_clip_places(self.path, self._shapes, prefix=inner.prefix, layers=layers)
            else:
                found[name] = clip_places(self.path, self._shapes, prefix=inner.prefix)
            if self._projection_of(name) is None:
                found[name].pop("text_projection.weight", None)
        return {name: WeightsOfFile(places) for name, places in found.items()}

    def weights(self, component: str) -> Tensors:
        if component not in self._parts:
            raise BadModel(f"the {component} of {self.path} cannot be read from a single file; give a folder.")
        return self._parts[component]

    def tokenizer(self, text: Text) -> Any:
        words = self.weights(text.encoder).shape("embeddings.token_embedding.weight")[0]
        if words != VOCABULARY:
            raise BadModel(
                f"{self.path}'s {text.encoder} knows {words} tokens, CLIP's tokenizer {VOCABULARY}; "
                "convert the file to a diffusers folder with its own tokenizer."
            )
        return clip_tokenizer(pad="!") if self._layout.texts[text.encoder].open_clip else clip_tokenizer()

    def text_encoder(self, text: Text) -> Any:
        weights = self.weights(text.encoder)
        config = self._text_config(text, weights)
        return build_encoder(text, config, weights, where=f"{self.path}'s {text.encoder}")

    def _text_config(self, text: Text, weights: Tensors) -> Any:
        from transformers import CLIPTextConfig

        words, width = weights.shape("embeddings.token_embedding.weight")
        layers = {key.split(".")[2] for key in weights.places if key.startswith("encoder.layers.")}
        return CLIPTextConfig(
            vocab_size=words,
            hidden_size=width,
            intermediate_size=weights.shape("encoder.layers.0.mlp.fc1.weight")[0],
            num_hidden_layers=len(layers),
            num_attention_heads=width // _HEAD,
            max_position_embeddings=weights.shape("embeddings.position_embedding.weight")[0],
            projection_dim=self._projection_of(text.encoder) or width,
            hidden_act="gelu" if self._layout.texts[text.encoder].open_clip else "quick_gelu",
            bos_token_id=words - 2,
            eos_token_id=words - 1,
            pad_token_id=words - 1,
        )

    def _projection_of(self, encoder: str) -> int | None:
        """How wide a text encoder's projected state is, if the family reads it."""
        kinds = {text.encoder: text.kind for text in self._layout.family.texts}
        key = f"{self._layout.texts[encoder].prefix}text_projection"
        shape = self._shapes.get(key)
        return shape[1] if shape and kinds[encoder] == "CLIPTextModelWithProjection" else None

    def check_whole(self) -> None:
        """Raises BadModel: a single file has no settings of UNet, autoencoder and scheduler."""
        raise BadModel(
            f"{self.path} is a single file, which can be edited and exported but holds no settings to make images "
            "with; convert it once with diffusers' `from_single_file` and `save_pretrained`, and give that folder."
        )

    def pipeline(self, name: str, dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
        self.check_whole()


class WeightsOfFile(Tensors):
    """The tensors of one part of a checkpoint."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places

    @property
    def places(self) -> Mapping[str, Place]:
        return self._places


def open_checkpoint(path: Path) -> Model:
    """A view of a single-file checkpoint; raises BadModel, which names what the file is instead, and BadWeights."""
    shapes = shapes_in(path)
    for layout in LAYOUTS:
        if all(any(key.startswith(mark) for key in shapes) for mark in layout.marks):
            return layout.family(Checkpoint(path, layout, shapes))
    stranger = next((what for begin, what in _STRANGERS.items() if any(key.startswith(begin) for key in shapes)), None)
    raise BadModel(
        f"{path} is {stranger or f'no checkpoint that is known here (its keys are {_sample(shapes)})'}; expected one "
        f"of {', '.join(layout.family.family for layout in LAYOUTS)} with its text encoders, or a diffusers folder."
    )


def _sample(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(sorted(shapes)[:2]) or "none"
