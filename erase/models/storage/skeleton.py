"""Whether a folder's files hold the tensors that its settings ask for, told before anything is computed.

What is expected is asked of the classes themselves, made without memory: names and shapes alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from erase.errors import BadModel
from erase.models.identity import canonical
from erase.models.model import Model
from erase.models.storage.ldm import current
from erase.models.storage.published import shapes_of
from erase.models.storage.source import read_json

Shapes = Mapping[str, tuple[int, ...]]
_T5_TABLE = "encoder.embed_tokens.weight"  # T5's table of tokens, which files hold under either of its names


def check_tensors(model: Model) -> None:
    """Raises BadModel, which names the tensor, if a part of a folder lacks one or holds it in another shape."""
    kinds = {text.encoder: text.kind for text in model.texts}
    for part in (model.backbone, *kinds, "vae"):
        file = model.path / part / "config.json"
        config = read_json(file)
        if part in kinds:
            config |= {"architectures": [kinds[part]]}
        expected = _expected(json.dumps(config, sort_keys=True), str(file))
        found = {
            ("shared.weight" if key == _T5_TABLE else canonical(current(part, key))): place.shape
            for key, place in model.weights(part).places.items()
        }
        if part == model.backbone:
            _check_channels(model, found)
        for name, shape in expected.items():
            _check(name, shape, found=found.get(name), where=f"{model.path / part}")


def _check(name: str, shape: tuple[int, ...], *, found: tuple[int, ...] | None, where: str) -> None:
    if found is None:
        raise BadModel(
            f"{where} lacks the tensor {name}, which its config.json asks for as {list(shape)}; download it again."
        )
    if _plain(found) != _plain(shape):
        raise BadModel(
            f"{where} holds {name} as {list(found)}, and its config.json asks for {list(shape)}; download it again."
        )


def _check_channels(model: Model, found: Shapes) -> None:
    """Raises BadModel for a UNet that reads more than a latent: a mask or a picture beside it."""
    entry = found.get("conv_in.weight")
    latent = read_json(model.path / "vae" / "config.json").get("latent_channels", 4)
    if model.backbone == "unet" and entry is not None and entry[1] != latent:
        kind = {9: "an inpainting", 8: "an instruct-pix2pix"}.get(entry[1], "another")
        raise BadModel(
            f"the unet of {model.path} reads {entry[1]} channels, as {kind} model does, and a {model.pipeline_class} "
            f"gives it {latent}; its model_index.json names the wrong class: edit its text-to-image base instead."
        )


@lru_cache(maxsize=32)
def _expected(config: str, where: str) -> Shapes:
    shapes = shapes_of(json.loads(config), where=where)
    return MappingProxyType({key: shape for key, shape in shapes.items() if key != _T5_TABLE})


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without ones at its end: older files hold linear layers as convolutions."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def check_published(where: object, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Any]) -> None:
    """Raises BadModel if all of a single file's UNet is as published but for tensors that it lacks."""
    missing = sorted(expected.keys() - found.keys())
    if missing and all(found[name].shape == shape for name, shape in expected.items() if name in found):
        raise BadModel(f"{where} lacks the UNet's tensor {missing[0]}; download the model again.")
