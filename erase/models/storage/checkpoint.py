"""Single-file checkpoints (SD 1.x, 2.x and XL) as sources of the same tensors that a diffusers folder holds.

Edits are made and named as for the folder, so an edit made on one fits the other. A checkpoint holds no settings:
those of the text encoders follow from the tensors' shapes and the family, their tokenizer is CLIP's. All others are
the family's published ones if its shapes are, or those of a folder that is given as `config`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from erase.errors import BadModel
from erase.models.families import families
from erase.models.model import Model
from erase.models.storage.clip_tokens import VOCABULARY, clip_tokenizer
from erase.models.storage.kinds import kind_of
from erase.models.storage.ldm import TEXTS, UNET, places
from erase.models.storage.published import published, settings_of, shapes_of
from erase.models.storage.skeleton import check_published
from erase.models.storage.source import Folder, read_json
from erase.models.storage.weights import Tensors, WeightsOfFile, shapes_in
from erase.models.text import Text, build_encoder, first_line

_HEAD = 64  # columns of an attention head in every CLIP that the families use


class Checkpoint:
    """A single-file checkpoint of a family, and the folder that says what it does not, if one is given."""

    def __init__(
        self, path: Path, family: type[Model], shapes: Mapping[str, tuple[int, ...]], *, config: Path | None = None
    ) -> None:
        self.path, self._family, self._shapes = path, family, shapes
        self._texts, self.config = TEXTS[family.family], Folder(config) if config else None
        if config is None:
            check_published(path, shapes_of(settings_of(family.family, "unet")), self.weights("unet").places)

    def has(self, part: str) -> bool:
        """Whether there is such a part; tokenizers and the scheduler are never stored, and never missing."""
        prefixes = {"unet": UNET} | {name: inner.prefix for name, inner in self._texts.items()}
        return any(key.startswith(prefixes.get(part, "")) for key in self._shapes)

    @cached_property
    def _parts(self) -> dict[str, Tensors]:
        found = places(self.path, self._shapes, self._family.family)
        return {name: WeightsOfFile(tensors) for name, tensors in found.items()}

    def weights(self, component: str) -> Tensors:
        if component not in self._parts:
            raise BadModel(f"the {component} of {self.path} cannot be read from a single file; give a folder.")
        return self._parts[component]

    def tokenizer(self, text: Text) -> Any:
        if self.config is not None:
            return self.config.tokenizer(text)
        words = self.weights(text.encoder).shape("embeddings.token_embedding.weight")[0]
        if words != VOCABULARY:
            raise BadModel(
                f"{self.path}'s {text.encoder} knows {words} tokens, CLIP's tokenizer {VOCABULARY}; "
                "convert the file to a diffusers folder with its own tokenizer."
            )
        return clip_tokenizer(pad="!") if self._texts[text.encoder].open_clip else clip_tokenizer()

    def text_encoder(self, text: Text) -> Any:
        weights = self.weights(text.encoder)
        config = self._text_config(text, weights) if self.config is None else self.config.text_config(text)
        return build_encoder(text, config, weights, where=f"{self.path}'s {text.encoder}")

    def _text_config(self, text: Text, weights: Tensors) -> Any:
        from transformers import CLIPTextConfig

        words, width = weights.shape("embeddings.token_embedding.weight")
        layers = {key.split(".")[2] for key in weights.places if key.startswith("encoder.layers.")}
        projection = "text_projection.weight"
        return CLIPTextConfig(
            vocab_size=words,
            hidden_size=width,
            intermediate_size=weights.shape("encoder.layers.0.mlp.fc1.weight")[0],
            num_hidden_layers=len(layers),
            num_attention_heads=width // _HEAD,
            max_position_embeddings=weights.shape("embeddings.position_embedding.weight")[0],
            projection_dim=weights.shape(projection)[0] if projection in weights.places else width,
            hidden_act="gelu" if self._texts[text.encoder].open_clip else "quick_gelu",
            bos_token_id=words - 2,
            eos_token_id=words - 1,
            pad_token_id=words - 1,
        )

    @contextlib.contextmanager
    def settings(self) -> Iterator[Path]:
        """A folder of the settings and tokenizers that belong to the file, there for the block.

        Raises BadModel if the file's tensors are not those of these settings.
        """
        with contextlib.ExitStack() as stack:
            if self.config is None:
                ends = "ztsnr" in self._shapes  # a mark that UIs know, as `v_pred` is
                folder = stack.enter_context(published(self._family.family, self._prediction(), zero_terminal_snr=ends))
            else:
                folder = self.config.path
            parts = ("unet", "vae", *self._texts)
            for part in parts:
                file = folder / part / "config.json"
                self._check_shapes(part, shapes_of(read_json(file), where=file))
            yield folder

    def _prediction(self) -> str | None:
        """What the file says that it predicts."""
        with safe_open(self.path, framework="pt") as file:
            said = dict(file.metadata() or {})
        if "v_pred" in self._shapes or said.get("modelspec.architecture", "").endswith("-v"):
            return "v_prediction"
        kind = said.get("modelspec.prediction_type")
        return {"v": "v_prediction"}.get(kind, kind) if kind else None

    def _check_shapes(self, part: str, expected: Mapping[str, tuple[int, ...]]) -> None:
        places = self.weights(part).places
        where = f"those of {self.config.path}" if self.config else f"the published ones of a {self._family.family}"
        for name, shape in expected.items():
            found = places[name].shape if name in places else None
            if found != shape:
                what = "has none" if found is None else f"has it as {list(found)}"
                raise BadModel(
                    f"{self.path} is a single file, which holds no settings, and {where} do not fit it: they ask for "
                    f"{part}.{name} as {list(shape)}, the file {what}; convert it once with diffusers' "
                    "`from_single_file(config=...)` and `save_pretrained`, or name a folder of its settings behind "
                    "it, as FILE@FOLDER."
                )

    def check_whole(self) -> None:
        with self.settings():
            return

    def pipeline(self, name: str, dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
        import diffusers

        with self.settings() as folder:
            try:
                return getattr(diffusers, name).from_single_file(
                    str(self.path), config=str(folder), local_files_only=True, dtype=dtype, **options
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise BadModel(f"{self.path} cannot be loaded: {first_line(error)}") from error


def is_whole(keys: Iterable[str], family: str) -> bool:
    """Whether a file with such keys is a whole checkpoint of a family."""
    prefixes = [inner.prefix for inner in TEXTS.get(family, {}).values()]
    return bool(prefixes) and all(any(key.startswith(prefix) for key in keys) for prefix in (UNET, *prefixes))


def open_checkpoint(path: Path, *, config: Path | None = None) -> Model:
    """A view of a single-file checkpoint; raises BadModel, which names what the file is instead, and BadWeights."""
    shapes = shapes_in(path)
    known = [family for family in families() if family.family in TEXTS]
    for family in known:
        if is_whole(shapes, family.family):
            return family(Checkpoint(path, family, shapes, config=config))
    what = (
        kind_of(shapes) or f"no checkpoint that is known here (its keys are {', '.join(sorted(shapes)[:2]) or 'none'})"
    )
    raise BadModel(
        f"{path} is {what}; expected a whole one of {', '.join(family.family for family in known)} with all its "
        "text encoders, or a diffusers folder."
    )
