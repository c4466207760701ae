"""The edit that a file of weights makes of a base: a checkpoint, a UNet's tensors or a LoRA, whoever wrote it.

What a file holds is either another value of some tensors, of which the differences are taken, or a LoRA, of which the
products are. Keys may be those of diffusers (with `unet.` in front or without), of the LDM layout (with
`model.diffusion_model.` or without), of kohya's LoRAs in both spellings, or of diffusers' LoRAs, old and new. A key
that fits nothing is an error, so that nothing is left out in silence.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase.changes import LowRank
from erase.edit import Edit, EditInfo
from erase.edit_file import METADATA_KEY
from erase.errors import BadEdit, BadModel, BadOption
from erase.files import sha256_of
from erase.models import Model
from erase.models.identity import identity_keys
from erase.models.storage.checkpoint import is_whole, open_checkpoint
from erase.models.storage.kinds import PUBLISHED, kind_of
from erase.models.storage.ldm import TEXTS, UNET, slots
from erase.models.storage.loaded import Loaded
from erase.models.storage.mmdit import LAYOUTS
from erase.models.storage.stored import StoredTensors
from erase.models.storage.transformer import places_in
from erase.models.storage.weights import WeightsOfFile, check_finite, read_keys, shapes_in

_PART = re.compile(
    r"(?P<module>.+?)\.(?:(?P<down>lora_down|lora_A|lora\.down|down)|(?P<up>lora_up|lora_B|lora\.up|up))"
    r"(?:\.default)?\.weight|(?P<scaled>.+)\.alpha"
)
_OLD = re.compile(r"\.processor\.(to_\w+?)_lora")  # how diffusers named a LoRA's layers at first
_KOHYA = {"unet": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}


def edit_in(path: Path, base: Model) -> Edit:
    """The edit in an edit's file, or what any other file of weights changes of a base.

    Raises BadEdit for a file that does not fit the base, ModelMismatch for an edit of another one, BadWeights,
    PickleRefused. Another value of a tensor of float32 is met to its last bit but one: differences are float32.
    """
    said = {} if not path.is_file() else read_keys(path)[0]
    if not path.is_file() or METADATA_KEY in said:
        edit = Edit.load(path)
        return edit.rebased(base)
    shapes = shapes_in(path)
    kind = kind_of(shapes)
    info = _info(path, base, said, kind=kind)
    if "LoRA" in kind:
        return Edit(info, low_rank=tuple(_low_rank(path, base, said)))
    if kind in PUBLISHED and base.family in LAYOUTS:
        return Edit(info, deltas=dict(_of_transformer(path, base)))
    deltas = dict(_of_checkpoint(path, base) if is_whole(shapes, base.family) else _of_tensors(path, base))
    return Edit(info, deltas=deltas)


def with_loras(base: Model, loras: Sequence[str]) -> Model:
    """The model with LoRAs fused into its weights, in memory and in float32; its files stay as they are.

    `loras`: files, each FILE or FILE=SCALE, of any of the kinds that `edit_in` reads. Raises BadEdit for another file,
    BadOption for a scale that is no number.
    """
    if not loras:
        return base
    pipe, told = base.pipeline(torch.float32), []
    for file, scale in map(parse_lora, loras):
        if not file.is_file() or METADATA_KEY in read_keys(file)[0] or "LoRA" not in kind_of(shapes_in(file)):
            raise BadEdit(f"--lora {file} is no LoRA; expected a .safetensors file of one for {base.path.name}.")
        edit_in(file, base).scaled(scale).apply(pipe, force=True)
        told.append({"file": file.name, "sha256": sha256_of(file), "scale": scale})
    names = " and ".join(Path(str(one["file"])).stem for one in told)
    home = base.path if base.path.is_dir() else None
    fused = type(base)(Loaded(pipe, name=f"{base.title} with {names}", home=home))
    fused.torch_dtype, fused.device, fused.loras = base.torch_dtype, base.device, (*base.loras, *told)
    return fused


def parse_lora(text: str) -> tuple[Path, float]:
    """File and scale of FILE or FILE=SCALE; raises BadOption."""
    file, _, scale = text.rpartition("=")
    if not file or Path(text).is_file():
        return Path(text), 1.0
    try:
        return Path(file), float(scale)
    except ValueError as error:
        raise BadOption(f'--lora "{text}" ends in no number; expected FILE, or FILE=0.8 for a weaker one.') from error


def _info(path: Path, base: Model, said: Mapping[str, str], *, kind: str) -> EditInfo:
    """What the file itself says of the edit in it, where it was exported here."""
    own: dict[str, Any] = {}
    with contextlib.suppress(ValueError, TypeError):
        own = dict(json.loads(said["erase.recipe"])) if "erase.recipe" in said else {}
    task = own.get("task") if isinstance(own.get("task"), dict) else {}
    record = {"file": path.name, "kind": kind or "tensors"}
    return EditInfo("weights", {}, task or {}, base.family, base.fingerprint, record=record)


def _of_checkpoint(path: Path, base: Model) -> Iterator[tuple[str, Tensor]]:
    """What a whole checkpoint changes; raises BadEdit for another family, or an autoencoder that differs as well."""
    other = open_checkpoint(path)
    if other.family != base.family:
        raise BadEdit(f"{path} is of the family {other.family} and the base of {base.family}; give its own base model.")
    for name in _names(base):
        component, _, key = name.partition(".")
        if key not in other.weights(component).places:
            raise BadEdit(f"{path} lacks {name}, which {base.path.name} has; give the base that it was made from.")
        yield from _changed(name, other.weight(name), base, path=path)
    for key in other.weights("vae").places.keys() & base.weights("vae").places.keys():
        if _delta(base.weight(f"vae.{key}"), other.weight(f"vae.{key}")) is not None:
            raise BadEdit(
                f"the autoencoder in {path} is another one than that of {base.path.name} ({key}), which an edit does "
                "not change; give the base that the file was made from."
            )


def _of_transformer(path: Path, base: Model) -> Iterator[tuple[str, Tensor]]:
    """What a file of a whole transformer changes, by the names under which it was published."""
    expected = {key: place.shape for key, place in base.weights(base.backbone).places.items()}
    found = WeightsOfFile(places_in(path, base.family, expected, where=base.path))
    for key in expected:
        yield from _changed(f"{base.backbone}.{key}", found.tensor(key), base, path=path)


def _of_tensors(path: Path, base: Model) -> Iterator[tuple[str, Tensor]]:
    """What a file of some tensors changes, by whichever names."""
    spelled = dict(_tensor_spellings(base))
    with StoredTensors(path) as file:
        for key in (key for key in shapes_in(path) if not key.endswith("position_ids")):
            if key not in spelled:
                raise BadEdit(
                    f"{path} holds {key}, which {base.path.name}, a {base.family} model, does not have; expected an "
                    "edit, or a checkpoint, UNet tensors or a LoRA of this base."
                )
            check_finite(value := file.tensor(key), f"{key} in {path}")
            yield from _changed(spelled[key], value, base, path=path)


def _changed(name: str, value: Tensor, base: Model, *, path: Path) -> Iterator[tuple[str, Tensor]]:
    own = base.weight(name)
    if value.numel() != own.numel() or value.shape[:1] != own.shape[:1]:
        raise BadEdit(
            f"{path} holds {name} as {list(value.shape)} and {base.path.name} as {list(own.shape)}; give the base that "
            "it was made from."
        )
    if (delta := _delta(own, value.reshape(own.shape))) is not None:
        yield name, delta


def _delta(own: Tensor, value: Tensor) -> Tensor | None:
    """What is added to a base's own tensor; none where the value is the same, or the same in fewer bits."""
    if torch.equal(own.to(value.dtype), value):
        return None
    return (value.double() - own.double()).float()


@dataclass
class _Module:
    """The two factors of a LoRA's module, and what divides them."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None
    keys: list[str] = field(default_factory=list)


def _low_rank(path: Path, base: Model, said: Mapping[str, str]) -> Iterator[LowRank]:
    """The products of a LoRA's modules; raises BadEdit for a module that the base lacks or that is no plain LoRA."""
    spelled, modules = dict(_module_spellings(base)), _modules(path)
    for module, one in modules.items():
        name = spelled.get(module)
        if name is None or one.up is None or one.down is None:
            why = "has no layer of this name" if name is None else "one of its two factors is missing"
            raise BadEdit(f"{path} holds {one.keys[0]}, no LoRA of {base.path.name}: {why}; give its own base.")
        up, down = one.up.float().flatten(1), one.down.float().flatten(1)
        rows, columns = base.weight(name).shape[0], math.prod(base.weight(name).shape[1:])
        if (len(up), up.shape[1], down.shape[1]) != (rows, len(down), columns):
            raise BadEdit(
                f"{path} holds {module} as {list(up.shape)} by {list(down.shape)}, and {name} of {base.path.name} is "
                f"{[rows, columns]}; give the base that it was made for."
            )
        if up.any() and down.any():
            scale = _alpha(module, said) if one.alpha is None else one.alpha / len(down)
            yield LowRank((up * scale).contiguous(), down.contiguous(), name)


def _modules(path: Path) -> dict[str, _Module]:
    """A LoRA's modules by their names in the file, sorted."""
    found: dict[str, _Module] = {}
    with StoredTensors(path) as file:
        for key in shapes_in(path):
            match = _PART.fullmatch(key)
            if match is None:
                raise BadEdit(f"{path} holds {key}, no part of a plain LoRA; merge it into a model.")
            check_finite(value := file.tensor(key), f"{key} in {path}")
            module = _OLD.sub(r".\1", match["module"] or match["scaled"])
            module = re.sub(r"\.to_out(\.0)*$", ".to_out.0", module)
            one = found.setdefault(module.removeprefix("base_model.model."), _Module())
            one.keys.append(key)
            if match["scaled"]:
                one.alpha = float(value)
            elif match["down"]:
                one.down = value
            else:
                one.up = value
    return found


def _alpha(module: str, said: Mapping[str, str]) -> float:
    """The scale of a module without one of its own, as diffusers writes it beside; else 1."""
    with contextlib.suppress(ValueError, TypeError, KeyError, ZeroDivisionError):
        about, part = json.loads(said["lora_adapter_metadata"]), module.partition(".")[0]
        return float(about[f"{part}.lora_alpha"]) / float(about[f"{part}.r"])
    return 1.0


def _names(base: Model) -> Iterator[str]:
    """The tensors that an edit may change, by the names that edits give them."""
    yield from (f"{base.backbone}.{key}" for key in base.weights(base.backbone).places)
    for text in base.text_components:
        yield from (f"{text}.{key}" for key in identity_keys(base.weights(text).places))


def _tensor_spellings(base: Model) -> Iterator[tuple[str, str]]:
    """Every key under which a file may hold a tensor of the base, with the edit's name for it."""
    for name in _names(base):
        component, _, key = name.partition(".")
        yield name, name
        if component == base.backbone:
            yield key, name
        else:
            yield f"{component}.text_model.{key}", name
        if component == base.text_components[0]:  # a file of this encoder alone
            yield f"text_model.{key}", name
    for name, key in _ldm_keys(base):
        yield key, name
        yield f"{UNET}{key}", name


def _module_spellings(base: Model) -> Iterator[tuple[str, str]]:
    """Every name under which a LoRA may hold a layer of the base, with the edit's name for its weight."""
    for key, name in _tensor_spellings(base):
        if key.endswith(".weight"):
            yield key.removesuffix(".weight"), name
    for name in (name for name in _names(base) if name.endswith(".weight")):
        component, _, key = name.removesuffix(".weight").partition(".")
        inner = f"text_model.{key}" if component in base.text_components else key
        for prefix in _KOHYA.get(component, (f"lora_{component}",)):
            yield f"{prefix}_{inner}".replace(".", "_"), name
    for name, key in _ldm_keys(base):
        yield f"lora_unet_{key.removesuffix('.weight')}".replace(".", "_"), name


def _ldm_keys(base: Model) -> Iterator[tuple[str, str]]:
    """The UNet's tensors with their keys in the LDM layout, without its prefix; none where it has no such layout."""
    names = [name for name in _names(base) if name.startswith("unet.")]
    with contextlib.suppress(BadModel):
        found = slots(names, base.family) if base.family in TEXTS else {}
        yield from ((name, slot.key.removeprefix(UNET)) for name, slot in found.items())
