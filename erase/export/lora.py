"""The edit as a LoRA that A1111, ComfyUI and diffusers load, of no higher rank than its prompts need.

A text map `M = I + U V` changes a weight by `(W U) V`, which is a LoRA as it stands: its rank is the number of edited
vectors. Most of them move nothing that anybody asks for, so a change keeps only the singular directions that hold what
the layers put out to `loss` (`_rank`). A dense change is cut to `rank` by SVD before that, the nearest matrix of that
rank (Eckart and Young, 1936). What either loses, and what rounding does, is written into the file and told apart.

Keys are kohya's (`lora_unet_<module>.lora_down.weight`, `.lora_up.weight`, `.alpha`) and alpha is always the rank:
diffusers drops any other (diffusers#6087). Those of a transformer, for SD 3 and FLUX, are diffusers' own
(`transformer.<module>.lora_A.weight`, `.lora_B.weight`), which ComfyUI maps as well (`comfy/lora.py`); their alpha is
the rank where none is given.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor

from erase.edit import Edit, TextMap
from erase.errors import BadEdit, BadOption
from erase.export.parts.modelspec import Architecture, architecture, modelspec
from erase.export.parts.rank import Factors, Reach, missed, rank_within, reach_of, spectrum
from erase.export.parts.recipe import RECIPE_KEY, recipe, single_file, title_of
from erase.export.parts.writing import Entry, write_tensors
from erase.models import Model
from erase.models.state import check_unquantised, dequantised

LOSS_KEY = "erase.lora"
_logger = logging.getLogger(__name__)
_TOLD_FROM = 1e-3  # relative error
_LAYER = re.compile(r"(\.layers\.\d+)\..*")
_TRANSFORMER = "transformer."
_SPELLED = {"add_embedding.linear_1": "label_emb_0_0", "add_embedding.linear_2": "label_emb_0_2"}


@dataclass(frozen=True)
class Losses:
    """What a LoRA loses of each weight's change, by name, as a share of its Frobenius norm.

    `cut`: what a dense change beyond `rank` loses. `rounded`: what rounding to the file's precision loses. `whole`:
    all of it together, what `loss` lets go of included.
    """

    cut: Mapping[str, float]
    rounded: Mapping[str, float]
    whole: Mapping[str, float]


def lora(
    model: Model,
    edit: Edit,
    target: Path,
    *,
    rank: int = 32,
    loss: float = 1e-3,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    redact: str = "",
) -> Path:
    """The LoRA's file.

    `rank`: of a dense change; more is closer and larger. `loss`: the largest relative change of what the layers put out
    for the edit's targets and keeps; more is smaller, 0 keeps all of it. `dtype`: float16 halves the file and rounds,
    by 5e-4 of a number. `redact`: a secret under which the concepts' names are hashed.

    Raises RunConflict if another file lies there,
    ModelMismatch, BadEdit if the edit changes what a LoRA cannot hold, BadWeights if that is quantised, BadOption.
    """
    edit.check(model)
    if rank < 1:
        raise BadOption(f"lora: rank is {rank}; expected 1 or more.")
    if not 0 <= loss < 1:
        raise BadOption(f"lora: loss is {loss}; expected 0, which keeps all, or a share such as 0.001.")
    target = single_file(target, edit)
    kind = architecture(model)
    reach = reach_of(model, edit.info)
    model.free_encoders()
    made = factorised(model, edit, rank=rank, loss=loss, dtype=getattr(torch, dtype), reach=reach)
    metadata = {
        **modelspec(kind, title=title_of(edit, model.title, redact=redact), adapter=True),
        **(_kohya(kind, made.tensors) if model.backbone == "unet" else {}),
        RECIPE_KEY: json.dumps(recipe(edit, redact=redact), sort_keys=True),
        LOSS_KEY: json.dumps(made.told(reach), sort_keys=True),
    }
    write_tensors(target, {key: Entry.of(value) for key, value in made.tensors.items()}, metadata=metadata)
    _tell(target, made, reach, dtype=dtype, asked=loss)
    return target


@dataclass(frozen=True)
class Factorised:
    """A LoRA's tensors by their keys, its rank, and what it loses.

    `lost`: the largest relative change of what the layers put out for the edit's prompts, rounding included.
    """

    tensors: dict[str, Tensor]
    rank: int
    lost: float
    losses: Losses

    def told(self, reach: Reach) -> dict[str, Any]:
        """What the file says of it."""
        by = f"what the layers put out for {reach.prompts} prompts" if reach.states else "the changes themselves"
        return {"relative_error": dict(self.losses.whole), "rank": self.rank, "lost": self.lost, "lost_of": by}


def factorised(model: Model, edit: Edit, *, rank: int, loss: float, dtype: torch.dtype, reach: Reach) -> Factorised:
    """The file's tensors, and what they miss of the edit."""
    is_joint, is_xl = model.backbone == "transformer", "text_encoder_2" in model.text_components
    weights = {name: dequantised(model.weight(name)) for name in with_companions(edit.touches)}
    modules = {name: module_key(name, weight, two_encoders=is_xl, joint=is_joint) for name, weight in weights.items()}
    changes = {}
    for name, weight in weights.items():
        check_unquantised(name, weight)
        changes[name] = spectrum(factors_of(edit, name, weight, rank=rank))
    # One rank for all modules: diffusers 0.42 gives attention layers the alpha that most modules have.
    common = max(
        (rank_within(changes[name], weight, reach.states.get(name), loss=loss) for name, weight in weights.items()),
        default=0,
    )
    tensors: dict[str, Tensor] = {}
    cut, rounded, whole, lost = {}, {}, {}, 0.0
    for name, weight in weights.items():
        one = padded(changes[name].first(common), common)
        up, down = one.up.to(dtype), one.down.to(dtype)
        kept, change = up.double() @ down.double(), change_of(edit, name, weight)
        whole[name] = share(change - kept, change)
        rounded[name] = share(one.up @ one.down - kept, change)
        if name in edit.deltas:
            cut[name] = share(change - changes[name].up @ changes[name].down, change)
        lost = max(lost, missed(change, kept, weight, states=reach.states.get(name)))
        tensors |= spelled(modules[name], up, down, shape=weight.shape)
    return Factorised(tensors, common, lost, Losses(cut, rounded, whole))


def spelled(module: str, up: Tensor, down: Tensor, *, shape: Sequence[int]) -> dict[str, Tensor]:
    """A module's factors under the file's keys, those of a convolution in its shape."""
    if module.startswith(_TRANSFORMER):
        return {f"{module}.lora_A.weight": down.contiguous(), f"{module}.lora_B.weight": up.contiguous()}
    return {
        f"{module}.lora_down.weight": down.reshape(-1, *shape[1:]).contiguous(),
        f"{module}.lora_up.weight": up.reshape(*up.shape, *[1] * (len(shape) - 2)).contiguous(),
        f"{module}.alpha": torch.tensor(float(up.shape[1])),
    }


def with_companions(names: Sequence[str]) -> tuple[str, ...]:
    """The names, and for every changed text encoder an `out_proj`, whose change may then be zero.

    diffusers 0.42 knows kohya's text encoder keys only if one of them is an `out_proj`.
    """
    more: dict[str, str] = {}
    for name in names:
        component, _, key = name.partition(".")
        own = [other for other in names if other.startswith(f"{component}.") and "out_proj" in other]
        if component.startswith("text_encoder") and _LAYER.search(key) and not own:
            more.setdefault(component, _LAYER.sub(r"\1.self_attn.out_proj.weight", name))
    return (*names, *more.values())


def module_key(name: str, weight: Tensor, *, two_encoders: bool = False, joint: bool = False) -> str:
    """A weight's module as the file spells it; raises BadEdit if a LoRA cannot change this tensor.

    `joint`: the model has a transformer, whose LoRAs are not known to hold text encoders in a form that all load.
    """
    component, _, key = name.partition(".")
    module = key.removesuffix(".weight")
    if joint and component == "transformer" and module != key and weight.dim() == 2:
        return f"{_TRANSFORMER}{module}"
    text = "lora_te1" if two_encoders else "lora_te"
    prefixes = {"unet": "lora_unet", "text_encoder": text, "text_encoder_2": "lora_te2"}
    is_layer = component == "unet" or "encoder.layers." in key
    if component not in prefixes or module == key or weight.dim() not in (2, 4) or not is_layer or joint:
        raise BadEdit(
            f"the edit changes {name}, which a LoRA cannot hold (only linear layers and convolutions of a UNet and "
            "its text encoders, and linear layers of a transformer); export it as patch, folder or checkpoint."
        )
    if component != "unet":  # with the prefix, whichever way the encoder itself is stored
        module = f"text_model.{module.removeprefix('text_model.')}"
    return f"{prefixes[component]}_{_SPELLED.get(module, module).replace('.', '_')}"


def factors_of(edit: Edit, name: str, weight: Tensor, *, rank: int) -> Factors:
    """The factors of what an edit adds to a weight, its text maps and adapters exact, its dense change cut."""
    matrix = weight.double().flatten(1)
    maps = [text_map for text_map in edit.text_maps if name in text_map.sites]
    parts = [Factors(matrix[:, :0], matrix[:0])]
    parts += [_mapped(matrix, text_map) for text_map in maps]
    parts += [Factors(one.up.double(), one.down.double()) for one in edit.low_rank if one.site == name]
    if name in edit.deltas:
        parts.append(truncated(edit.deltas[name].double().flatten(1), rank))
    return Factors(torch.cat([part.up for part in parts], 1), torch.cat([part.down for part in parts]))


def _mapped(matrix: Tensor, text_map: TextMap) -> Factors:
    """`(W U) V`; a weight with more columns than the map has reads other things with the rest."""
    width = len(text_map.up)
    down = torch.nn.functional.pad(text_map.down.double(), (0, matrix.shape[1] - width))
    return Factors(matrix[:, :width] @ text_map.up.double(), down)


def truncated(change: Tensor, rank: int) -> Factors:
    """The nearest matrix of a rank, with the singular values shared evenly between both factors."""
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    root = values[:rank].sqrt()
    return Factors(left[:, :rank] * root, root[:, None] * right[:rank])


def padded(factors: Factors, rank: int) -> Factors:
    """The same product in factors of a larger rank."""
    more = rank - factors.rank
    return Factors(
        torch.nn.functional.pad(factors.up, (0, more)), torch.nn.functional.pad(factors.down, (0, 0, 0, more))
    )


def change_of(edit: Edit, name: str, weight: Tensor) -> Tensor:
    """All that an edit adds to a weight, as a matrix [rows, columns] float64."""
    total = torch.zeros_like(weight, dtype=torch.float64)
    for text_map in (text_map for text_map in edit.text_maps if name in text_map.sites):
        total = total + text_map.delta(weight)
    for one in (one for one in edit.low_rank if one.site == name):
        total = total + one.delta(weight)
    return (total + edit.deltas[name].double() if name in edit.deltas else total).flatten(1)


def share(missing: Tensor, change: Tensor) -> float:
    """The Frobenius norm of what is missing by that of a change; 0 where nothing changes."""
    norm = torch.linalg.vector_norm(change)
    return float(torch.linalg.vector_norm(missing) / norm) if norm > 0 else 0.0


def _kohya(kind: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What kohya's loaders ask the metadata of a LoRA with their keys for."""
    rank = str(max(int(value) for key, value in tensors.items() if key.endswith(".alpha")))
    return {
        "ss_v2": str(kind.name.startswith("stable-diffusion-v2")),
        "ss_base_model_version": kind.kohya,
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_network_args": "{}",
    }


def summary(file: Path) -> str:
    """The rank of a LoRA that was written here, and what it loses, in a line."""
    with safe_open(file, framework="pt") as opened:
        said = json.loads(opened.metadata()[LOSS_KEY])
    return f"rank {said['rank']}; {100 * said['lost']:.2g} % is lost of {said['lost_of']}"


def _tell(target: Path, made: Factorised, reach: Reach, *, dtype: str, asked: float) -> None:
    if not reach.states and asked:
        _logger.warning("%s: loss is measured on the changes themselves, for %s", target, reach.why)
    cut = {name: loss for name, loss in made.losses.cut.items() if loss > _TOLD_FROM}
    if cut:
        worst = max(cut, key=lambda name: cut[name])
        _logger.warning(
            "%s: %d changes are not of low rank and were cut; at most %.1f %% of a change is lost (%s); a larger rank "
            "keeps more",
            *(target, len(cut), 100 * cut[worst], worst),
        )
    rounded = {name: loss for name, loss in made.losses.rounded.items() if loss > _TOLD_FROM}
    if rounded:
        worst = max(rounded, key=lambda name: rounded[name])
        _logger.warning(
            "%s: rounding to %s loses at most %.1f %% of a change (%s); dtype=float32 keeps it",
            *(target, dtype, 100 * rounded[worst], worst),
        )
