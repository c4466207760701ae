"""Opens a model by its name or folder and finds its family in its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erase import names
from erase.errors import BadModel, PickleRefused
from erase.models._model import Model
from erase.models.stable_diffusion import StableDiffusion

_FAMILIES: dict[str, type[Model]] = {"StableDiffusionPipeline": StableDiffusion}


def open_model(name_or_path: str | Path) -> Model:
    """A view of an embedded model (by name) or of a diffusers folder (by path).

    Raises UnknownName, BadModel, BadWeights, PickleRefused.
    """
    path = Path(name_or_path)
    if str(name_or_path) in names.known("models"):
        path = names.PACKAGE / "models" / str(name_or_path)
    elif not path.exists():
        raise names.unknown("models", str(name_or_path), path_too=True)
    index = _read_index(path)
    family = _FAMILIES.get(str(index.get("_class_name")))
    if family is None:
        raise BadModel(
            f"{path} is a {index.get('_class_name')}; expected one of {', '.join(sorted(_FAMILIES))}: "
            "other families cannot be edited yet."
        )
    return family(path)


def _read_index(path: Path) -> dict[str, Any]:
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise PickleRefused(
            f"{path} is a pickle, which can run code when it is read; expected a diffusers folder: "
            "convert it once with diffusers' `from_single_file` and `save_pretrained` in an environment you trust."
        )
    index = path / "model_index.json"
    if not index.is_file():
        raise BadModel(f"{path} is not a model: expected a diffusers folder with a model_index.json in it.")
    try:
        content = json.loads(index.read_text())
    except ValueError as error:
        raise BadModel(f"{index} is not JSON ({error}); get the model anew.") from error
    if not isinstance(content, dict):
        raise BadModel(f"{index} is not a JSON object; get the model anew.")
    return content
