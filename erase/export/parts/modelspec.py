"""ModelSpec 1.0.1, the metadata by which A1111, ComfyUI and the hub tell what a weight file is.

Source: github.com/Stability-AI/ModelSpec; the names of architectures and implementations are its own and kohya's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from erase import __version__
from erase.errors import BadModel
from erase.models import Model

SPECIFICATION = "1.0.1"
# Below: what kohya's scripts call the same bases (`ss_base_model_version`).
_KOHYA = {
    "stable-diffusion-v1": "sd_v1",
    "stable-diffusion-v2-512": "sd_v2",
    "stable-diffusion-v2-768-v": "sd_v2_v",
    "stable-diffusion-xl-v1-base": "sdxl_base_v1-0",
}
# Sides of their latents, where a single file does not say it.
_SIDES = {
    "stable-diffusion-v1": 64,
    "stable-diffusion-v2-512": 64,
    "stable-diffusion-v2-768-v": 96,
    "stable-diffusion-xl-v1-base": 128,
}
_LAYERS_OF_MEDIUM = 24
_WIDTH_OF_2 = 1024
_SGM = "https://github.com/Stability-AI/generative-models"


@dataclass(frozen=True)
class Architecture:
    """Which model it is, in the words of ModelSpec and of kohya, its resolution in pixels and what it predicts."""

    name: str
    resolution: int
    prediction: str

    @property
    def kohya(self) -> str:
        return _KOHYA[self.name]


def architecture(model: Model) -> Architecture:
    """The architecture that a model's weights and settings show; raises BadModel for one that has no name here."""
    sites = model.sites()
    if model.backbone == "transformer":
        return _of_transformer(model)
    unet, vae, scheduler = (read_config(model, part) for part in ("unet", "vae", "scheduler"))
    prediction = str(scheduler.get("prediction_type", "epsilon"))
    name = _name(model, max(site.columns for site in sites), prediction)
    levels = len(vae.get("block_out_channels", 4 * [0]))
    side = int(unet.get("sample_size") or _SIDES[name])
    return Architecture(name, side * 2 ** (levels - 1), prediction)


def _of_transformer(model: Model) -> Architecture:
    config, vae = read_config(model, model.backbone), read_config(model, "vae")
    names = {
        "flux": "flux-1-dev" if config.get("guidance_embeds") else "flux-1-schnell",
        "stable-diffusion-3": (
            "stable-diffusion-v3-medium" if config.get("num_layers") == _LAYERS_OF_MEDIUM else "stable-diffusion-3"
        ),
    }
    if model.family not in names:
        raise BadModel(f"{model.path.name} is a {model.family}, which has no name among the formats of this export.")
    side = int(config.get("sample_size") or 128) * 2 ** (len(vae.get("block_out_channels", 4 * [0])) - 1)
    return Architecture(names[model.family], side, "")


def read_config(model: Model, part: str) -> dict[str, Any]:
    """A part's configuration; empty if the model has no such part. Raises BadModel if it is damaged."""
    for name in ("config.json", "scheduler_config.json"):
        if (file := model.home / part / name).is_file():
            try:
                content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise BadModel(f"{file} is not JSON ({error}); download the model again.") from error
            return content
    return {}


def modelspec(kind: Architecture, *, title: str, adapter: bool = False, description: str = "") -> dict[str, str]:
    """The metadata of a whole checkpoint, or of an adapter such as a LoRA; the hash is added when it is written."""
    is_xl = kind.name == "stable-diffusion-xl-v1-base"
    fields = {
        "sai_model_spec": SPECIFICATION,
        "architecture": f"{kind.name}/lora" if adapter else kind.name,
        "implementation": _SGM if is_xl or not adapter else "diffusers",
        "implementation_version": f"erase {__version__}",
        "title": title,
        "description": description,
        "resolution": f"{kind.resolution}x{kind.resolution}",
        "prediction_type": "v" if kind.prediction == "v_prediction" else kind.prediction,
    }
    return {f"modelspec.{key}": value for key, value in fields.items() if value}


def _name(model: Model, width: int, prediction: str) -> str:
    """ModelSpec's name for a model whose UNet reads states of a width."""
    if len(model.text_components) > 1:
        return "stable-diffusion-xl-v1-base"
    if model.family.endswith("-2") or width == _WIDTH_OF_2:
        return "stable-diffusion-v2-768-v" if prediction == "v_prediction" else "stable-diffusion-v2-512"
    return "stable-diffusion-v1"
