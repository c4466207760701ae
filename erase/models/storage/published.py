"""The published settings of the families that come as single files, which hold none themselves."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from erase.errors import BadModel
from erase.models.storage.clip_tokens import clip_tokenizer
from erase.models.storage.source import read_json

_SETTINGS = Path(__file__).parent / "_settings"
_PREDICTIONS = ("epsilon", "v_prediction")
_SIDE_OF_2_BASE = 64  # of a latent; the model that predicts velocities has 96


@contextlib.contextmanager
def published(family: str, prediction: str | None = "epsilon", *, zero_terminal_snr: bool = False) -> Iterator[Path]:
    """A diffusers folder of a family without its weights: settings and tokenizers, there for the block.

    `prediction`: what its UNet predicts; only Stable Diffusion 2, which was published in both ways, has to say it.
    `zero_terminal_snr`: whether its noise schedule ends in noise alone. Raises BadModel if the prediction is not known.
    """
    if prediction is None and family == "stable-diffusion-2":
        raise BadModel(
            "a single file of Stable Diffusion 2 predicts noise or velocity, and this one does not say which "
            "(`modelspec.prediction_type` in its metadata); give the model's own settings as config."
        )
    if prediction not in (None, *_PREDICTIONS):
        raise BadModel(f'the file says that it predicts "{prediction}"; expected one of {", ".join(_PREDICTIONS)}.')
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(_SETTINGS / family, Path(place) / family))
        if prediction is not None:
            _amend(folder / "scheduler/scheduler_config.json", prediction_type=prediction)
        if zero_terminal_snr:
            _amend(folder / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True)
        if (family, prediction) == ("stable-diffusion-2", "epsilon"):
            _amend(folder / "unet/config.json", sample_size=_SIDE_OF_2_BASE)
        for part in sorted(folder.glob("text_encoder*")):
            is_open_clip = read_json(part / "config.json")["hidden_act"] == "gelu"
            tokenizer = clip_tokenizer(pad="!") if is_open_clip else clip_tokenizer()
            tokenizer.save_pretrained(folder / part.name.replace("text_encoder", "tokenizer"))
        yield folder


def settings_of(family: str, part: str) -> dict[str, Any]:
    """The published settings of a family's part."""
    return read_json(_SETTINGS / family / part / "config.json")


def shapes_of(config: Mapping[str, Any], *, where: object = "this config") -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a part with such settings, as its class makes them.

    Raises BadModel, which says `where` they come from.
    """
    import torch

    try:
        with torch.device("meta"):
            module = _module(dict(config))
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise BadModel(f"{where} makes no part of a model ({error}); get the model anew.") from error
    shapes = {key.removeprefix("text_model."): tuple(value.shape) for key, value in module.state_dict().items()}
    return {key: shape for key, shape in shapes.items() if not key.endswith("position_ids")}


def _amend(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(read_json(file) | settings, indent=2) + "\n", encoding="utf-8")


def _module(config: dict[str, Any]) -> Any:
    import diffusers
    import transformers

    if "_class_name" in config:
        return getattr(diffusers, config["_class_name"]).from_config(config)
    kind = getattr(transformers, config["architectures"][0])
    return kind(kind.config_class(**config))
