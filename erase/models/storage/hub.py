"""Models of the hub by their id: fetched into the hub's own cache, or found there without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erase.errors import BadModel
from erase.models.text import first_line
from erase.registry import HUB_ID

_FILES = ("model_index.json", "README.md", "LICENSE*", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")
_COPIES = ("*.fp16.*", "*.bf16.*", "*.non_ema.*", "*flax*", "*onnx*", "*openvino*")  # of weights that are there plain
_SNAPSHOTS, _PREFIX = "snapshots", "models--"  # names in the cache


def fetch(name: str) -> Path:
    """The folder of a model of the hub; without a network, of what was fetched before. Raises BadModel."""
    match = HUB_ID.fullmatch(name)
    if match is None:
        raise BadModel(f'"{name}" is no id of the hub; expected owner/name or owner/name@revision.')
    folder = _download(name, match["id"], match["revision"], ignored=_COPIES)
    if not any(folder.glob("*/diffusion_pytorch_model*.safetensors")):  # published in half precision alone
        folder = _download(name, match["id"], match["revision"], ignored=())
    return folder


def hub_id(path: Path) -> str:
    """The id of the model whose folder in the hub's cache this is; empty for any other folder."""
    repository = path.parent.parent.name
    if path.parent.name != _SNAPSHOTS or not repository.startswith(_PREFIX):
        return ""
    return repository.removeprefix(_PREFIX).replace("--", "/")


def root_of(path: Path) -> Path:
    """The folder that a model's links may lead to: its own, or that of its repository in the hub's cache."""
    return path.parent.parent if hub_id(path) else path


def _download(name: str, repository: str, revision: str | None, *, ignored: tuple[str, ...]) -> Path:
    import huggingface_hub

    hub: Any = huggingface_hub
    try:
        return Path(
            hub.snapshot_download(
                repository, revision=revision, allow_patterns=list(_FILES), ignore_patterns=list(ignored)
            )
        )
    except Exception as error:  # its network library, whose errors these are, is another one in each version
        raise BadModel(
            f"{name} is no path here, and the hub did not give it ({first_line(error)[:200]}); check the name and the "
            "network, or give a folder."
        ) from error
