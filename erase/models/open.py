"""Opens a model by its name or path and finds its family in its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from erase import registry
from erase.errors import BadModel
from erase.models.families import families
from erase.models.model import Model
from erase.models.storage.checkpoint import open_checkpoint
from erase.models.storage.embedded import embedded_folder
from erase.models.storage.hub import fetch
from erase.models.storage.kinds import TRANSFORMERS, kind_of
from erase.models.storage.loaded import Loaded
from erase.models.storage.skeleton import check_tensors
from erase.models.storage.source import Folder, read_json
from erase.models.storage.transformer import TransformerFile
from erase.models.storage.weights import refuse_pickle, shapes_in

_MARKS = ("cross_attention_dim", "use_linear_projection", "addition_embed_type")  # of a UNet, named in errors


def open_model(
    model: str | Path | Any,
    *,
    config: str | Path | None = None,
    torch_dtype: torch.dtype = torch.float32,
    device: str | torch.device = "",
) -> Model:
    """A view of a model: an embedded one by name, a diffusers folder or single file by path, an id of the hub, or a
    diffusers pipeline that is loaded already, which is read and never changed.

    An id of the hub is `owner/name` or `owner/name@revision`; what was fetched before is found without a network.

    A file that holds the transformer of Stable Diffusion 3.x or FLUX.1 alone is opened with a model that has the other
    parts, as `file.safetensors@folder` or by `config`.

    `config`: a diffusers folder with a single file's settings and tokenizers; the family's published ones if not given.
    `torch_dtype`, `device`: of the pipelines in which its images are made; an edit does not depend on them.
    Raises UnknownName, BadModel, BadWeights, PickleRefused.
    """
    opened = _open_path(model, config) if isinstance(model, str | Path) else _open_pipe(model, config)
    opened.torch_dtype, opened.device = torch_dtype, str(device)
    return opened


def _open_path(name_or_path: str | Path, config: str | Path | None) -> Model:
    name, parts = registry.file_and_parts(str(name_or_path))
    if parts and config is not None:
        raise BadModel(f'"{name_or_path}" names the other parts already; leave config out.')
    path = _located(name)
    if path.is_file():
        refuse_pickle(path)
    if path.suffix == ".safetensors":
        return _open_file(path, _located(str(config or parts)) if config or parts else None)
    if config is not None:
        raise BadModel(f"{path} is a folder, which has its own settings; config is for a single file: leave it out.")
    return _open_folder(path)


def _located(name: str) -> Path:
    """Where a model lies: an embedded one, a path, or an id of the hub; raises UnknownName, BadModel."""
    if name in registry.known("models"):
        return embedded_folder(name)
    if (path := registry.path_of(name)).exists():
        return path
    if registry.is_hub_id(name):
        return fetch(name)
    raise registry.unknown("models", name, path_too=True)


def _open_file(path: Path, parts: Path | None) -> Model:
    if (kind := kind_of(shapes_in(path))) not in TRANSFORMERS:
        return open_checkpoint(path, config=parts)
    if parts is None:
        raise BadModel(
            f"{path} is {kind}, without all that goes with it; name the folder or hub id of a model with its text "
            f"encoders, autoencoder and settings behind it, as {path}@FOLDER."
        )
    family = _family_in(parts, str(Folder(parts).index().get("_class_name")))
    return family(TransformerFile(path, family, parts))


def _open_pipe(pipe: Any, config: str | Path | None) -> Model:
    if isinstance(pipe, Model) or config is not None or not hasattr(pipe, "components"):
        raise BadModel(
            f"expected a model's name, path or id, or a loaded diffusers pipeline, but got a {type(pipe).__name__}"
            f"{' and a config, which is for a single file' if config is not None else ''}."
        )
    return family_of_pipe(pipe)(Loaded(pipe))


@contextmanager
def saved(model: Model) -> Iterator[Path | None]:
    """A folder, there for the block, of a model that was opened from a loaded pipeline; None of one that has files."""
    with model.source.saved() if isinstance(model.source, Loaded) else nullcontext() as folder:
        yield folder


def _open_folder(path: Path) -> Model:
    if not (path / "model_index.json").is_file():
        raise BadModel(
            f"{path} is not a model: expected a diffusers folder with a model_index.json in it, or a .safetensors file."
        )
    source = Folder(path)
    named = str(source.index().get("_class_name"))
    if named.startswith("StableDiffusionXL") and not source.has("text_encoder"):
        raise BadModel(
            f"{path} is the refiner of Stable Diffusion XL, which draws over another model's pictures and reads "
            "prompts by one text encoder; edit the base model, which it then refines."
        )
    candidates = [family for family in families() if family.pipeline_class == named]
    if candidates and not source.has(candidates[0].backbone):
        return candidates[0](source)  # which says what is missing
    model = _family_in(path, named)(source)
    if path.parent != registry.PACKAGE / "models":  # what the package carries is whole
        check_tensors(model)
    return model


def _family_in(path: Path, pipeline_class: str) -> type[Model]:
    """The family of a folder of a pipeline class; raises BadModel."""
    backbone = next((one.backbone for one in families() if one.pipeline_class == pipeline_class), "")
    config = read_json(path / backbone / "config.json") if backbone else {}
    return family_of(pipeline_class, config, path=path)


def family_of(pipeline_class: str, config: Mapping[str, Any], *, path: object) -> type[Model]:
    """The family of a pipeline class whose backbone has this config; raises BadModel, which names what was found."""
    candidates = [family for family in families() if family.pipeline_class == pipeline_class]
    if not candidates:
        known = ", ".join(dict.fromkeys(family.pipeline_class for family in families()))
        raise BadModel(f"{path} is a {pipeline_class}; expected one of {known}: other families cannot be edited yet.")
    for family in candidates:
        if family.matches(config):
            return family
    found = ", ".join(f"{mark} {config.get(mark)}" for mark in _MARKS)
    raise BadModel(
        f"{path} says that it is a {pipeline_class}, but its {candidates[0].backbone} is that of none "
        f"({found}); expected {' or '.join(family.family for family in candidates)}: download the model again."
    )


def family_of_pipe(pipe: Any) -> type[Model]:
    """The family of a loaded pipeline, told by its parts, so that it may also paint over or follow a picture.

    Raises BadModel.
    """
    for family in families():
        network: Any = getattr(pipe, family.backbone, None)
        network = getattr(network, "_orig_mod", network)  # a compiled one
        texts = [getattr(pipe, text.encoder, None) for text in family.texts if not text.optional]
        if type(network).__name__ == family.network and family.matches(network.config) and None not in texts:
            return family
    known = ", ".join(family.family for family in families())
    raise BadModel(f"this {type(pipe).__name__} has not the parts of any family; expected a whole pipeline of {known}.")
