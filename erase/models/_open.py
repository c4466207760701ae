"""Opens a model by its name or path and finds its family in its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erase import registry
from erase.errors import BadModel
from erase.models._checkpoint import open_checkpoint
from erase.models._hub import fetch
from erase.models._model import Model
from erase.models._skeleton import check_tensors
from erase.models._source import Folder, read_json
from erase.models._weights import refuse_pickle
from erase.models.flux import Flux
from erase.models.stable_diffusion import StableDiffusion
from erase.models.stable_diffusion_2 import StableDiffusion2
from erase.models.stable_diffusion_3 import StableDiffusion3
from erase.models.stable_diffusion_xl import StableDiffusionXL

FAMILIES: tuple[type[Model], ...] = (StableDiffusion, StableDiffusion2, StableDiffusionXL, StableDiffusion3, Flux)
_MARKS = ("cross_attention_dim", "use_linear_projection", "addition_embed_type")  # of a UNet, named in errors


def open_model(name_or_path: str | Path, *, config: str | Path | None = None) -> Model:
    """A view of an embedded model (by name), a diffusers folder or single-file checkpoint (by path), or one of the hub.

    An id of the hub is `owner/name` or `owner/name@revision`; what was fetched before is found without a network.

    `config`: a diffusers folder with a single file's settings and tokenizers; the family's published ones if not given.
    Raises UnknownName, BadModel, BadWeights, PickleRefused.
    """
    path = registry.path_of(str(name_or_path))
    if str(name_or_path) in registry.known("models"):
        path = registry.PACKAGE / "models" / str(name_or_path)
    elif not path.exists() and registry.is_hub_id(str(name_or_path)):
        path = fetch(str(name_or_path))
    elif not path.exists():
        raise registry.unknown("models", str(name_or_path), path_too=True)
    if path.is_file():
        refuse_pickle(path)
    if path.suffix == ".safetensors":
        return open_checkpoint(path, config=None if config is None else Path(config))
    if config is not None:
        raise BadModel(f"{path} is a folder, which has its own settings; config is for a single file: leave it out.")
    return _open_folder(path)


def _open_folder(path: Path) -> Model:
    if not (path / "model_index.json").is_file():
        raise BadModel(
            f"{path} is not a model: expected a diffusers folder with a model_index.json in it, or a .safetensors file."
        )
    source = Folder(path)
    named = str(source.index().get("_class_name"))
    candidates = [family for family in FAMILIES if family.pipeline_class == named]
    if candidates and not source.has(candidates[0].backbone):
        return candidates[0](source)  # which says what is missing
    config = read_json(path / candidates[0].backbone / "config.json") if candidates else {}
    model = family_of(named, config, path=path)(source)
    if path.parent != registry.PACKAGE / "models":  # what the package carries is whole
        check_tensors(model)
    return model


def family_of(pipeline_class: str, config: Mapping[str, Any], *, path: object) -> type[Model]:
    """The family of a pipeline class whose backbone has this config; raises BadModel, which names what was found."""
    candidates = [family for family in FAMILIES if family.pipeline_class == pipeline_class]
    if not candidates:
        known = ", ".join(dict.fromkeys(family.pipeline_class for family in FAMILIES))
        raise BadModel(f"{path} is a {pipeline_class}; expected one of {known}: other families cannot be edited yet.")
    for family in candidates:
        if family.matches(config):
            return family
    found = ", ".join(f"{mark} {config.get(mark)}" for mark in _MARKS)
    raise BadModel(
        f"{path} says that it is a {pipeline_class}, but its {candidates[0].backbone} is that of none "
        f"({found}); expected {' or '.join(family.family for family in candidates)}: get the model anew."
    )
