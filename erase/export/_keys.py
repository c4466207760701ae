"""Where the tensors of a diffusers folder stand in a single-file checkpoint (the LDM layout of SD 1.x, 2.x and XL).

The layout numbers the UNet's blocks through, downsamplers included; counts the decoder's from the other end; stores the
autoencoder's attention as 1 x 1 convolutions; and OpenCLIP's queries, keys and values as one tensor, its projection
transposed. Names are those of an `Edit`: the component in front, text encoders without `text_model.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from erase.errors import BadModel

Family = Literal["sd1", "sd2", "xl"]
Form = Literal["same", "convolution", "transposed", "joined"]
UNET, AUTOENCODER = "model.diffusion_model.", "first_stage_model."
CLIP_1, OPEN_CLIP_2 = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
# Each family's text encoders: the prefix in the file, and whether it is OpenCLIP's layout.
TEXTS: Mapping[Family, Mapping[str, tuple[str, bool]]] = {
    "sd1": {"text_encoder": (CLIP_1, False)},
    "sd2": {"text_encoder": (OPEN_CLIP_2, True)},
    "xl": {"text_encoder": (CLIP_XL, False), "text_encoder_2": (OPEN_CLIP_XL, True)},
}
_UNET_OUTER = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.attentions.0.": "middle_block.1.",
}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
_BLOCK = re.compile(r"(?P<side>down|up)_blocks\.(?P<block>\d+)\.(?P<kind>\w+)\.(?P<layer>\d+)\.(?P<rest>.+)")
_CODER_BLOCK = re.compile(
    r"(?P<coder>encoder|decoder)\.(?:down|up)_blocks\.(?P<block>\d+)\.(?P<kind>\w+)\.(?P<layer>\d+)\.(?P<rest>.+)"
)
_CODER_MIDDLE = re.compile(r"(?P<coder>encoder|decoder)\.mid_block\.(?P<kind>\w+)\.(?P<layer>\d)\.(?P<rest>.+)")
# Its layers' names today, and those under which older folders store them.
_CODER_ATTENTION = {
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
    "query.": "q.",
    "key.": "k.",
    "value.": "v.",
    "proj_attn.": "proj_out.",
}
_OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}
_OPEN_CLIP_LAYER = re.compile(r"encoder\.layers\.(?P<layer>\d+)\.(?P<part>.+)\.(?P<kind>weight|bias)")
_OPEN_CLIP_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_JOINED = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}


@dataclass(frozen=True)
class Slot:
    """A tensor's place in the file: its key, in which form, and which third of a joined tensor it is."""

    key: str
    form: Form = "same"
    third: int = 0

    def stored(self, value: Tensor) -> Tensor:
        """The value as the file holds it; of a joined tensor, its own third."""
        if self.form == "convolution":
            return value.reshape(*value.shape, 1, 1) if value.dim() == 2 else value
        return value.T.contiguous() if self.form == "transposed" else value


@dataclass(frozen=True)
class UNetShape:
    """What the numbering of blocks depends on: layers in each, and which of the way up have attention."""

    layers: int
    attended: frozenset[int]

    @staticmethod
    def of(keys: Iterable[str]) -> UNetShape:
        """The shape that the UNet's own keys show; raises BadModel if its blocks have different numbers of layers."""
        matches = [match for match in map(_BLOCK.fullmatch, keys) if match]
        counts: dict[str, int] = {}
        for match in (match for match in matches if match["side"] == "down" and match["kind"] == "resnets"):
            counts[match["block"]] = max(counts.get(match["block"], 0), int(match["layer"]) + 1)
        if len(set(counts.values())) != 1:
            raise BadModel(
                f"the UNet's blocks have {sorted(set(counts.values()))} layers; a single file has one number."
            )
        up = (match for match in matches if match["side"] == "up" and match["kind"] == "attentions")
        return UNetShape(next(iter(counts.values())), frozenset(int(match["block"]) for match in up))


def slots(names: Iterable[str], family: Family) -> dict[str, Slot]:
    """Where each tensor of a model stands in its single file; raises BadModel for a tensor that has no place there."""
    names = sorted(names)
    shape = UNetShape.of(name.removeprefix("unet.") for name in names if name.startswith("unet."))
    levels = 1 + max(
        (int(m[1]) for m in (re.match(r"vae\.encoder\.down_blocks\.(\d+)", n) for n in names) if m), default=0
    )
    found = {name: _slot(name, family, shape=shape, levels=levels) for name in names}
    missing = [name for name, slot in found.items() if slot is None]
    if missing:
        raise BadModel(f"{missing[0]} has no place in a single file of this family; export it as a folder.")
    return {name: slot for name, slot in found.items() if slot is not None}


def _slot(name: str, family: Family, *, shape: UNetShape, levels: int) -> Slot | None:
    component, _, key = name.partition(".")
    if component == "unet":
        inner = unet_key(key, shape)
        return None if inner is None else Slot(UNET + inner)
    if component == "vae":
        return _autoencoder_slot(key, levels)
    prefix, open_clip = TEXTS[family].get(component, ("", False))
    if not prefix:
        return None
    return _open_clip_slot(key, prefix) if open_clip else Slot(prefix + key)


def unet_key(key: str, shape: UNetShape) -> str | None:
    """The layout's key of one of diffusers' for the same tensor of the UNet; None if it has none."""
    if key.startswith("mid_block.resnets."):
        number, _, rest = key.removeprefix("mid_block.resnets.").partition(".")
        return f"middle_block.{2 * int(number)}.{_renamed(rest, _UNET_RESNET)}"
    for begin, inner in _UNET_OUTER.items():
        if key.startswith(begin):
            return inner + key.removeprefix(begin)
    match = _BLOCK.fullmatch(key)
    if match is None:
        return None
    down, block, kind, layer = match["side"] == "down", int(match["block"]), match["kind"], int(match["layer"])
    first = block * (shape.layers + 1) + down
    outer = "input_blocks" if down else "output_blocks"
    if kind == "resnets":
        return f"{outer}.{first + layer}.0.{_renamed(match['rest'], _UNET_RESNET)}"
    if kind == "attentions":
        return f"{outer}.{first + layer}.1.{match['rest']}"
    if kind == "downsamplers":
        return f"{outer}.{first + shape.layers}.0.op.{match['rest'].removeprefix('conv.')}"
    if kind == "upsamplers":  # stands behind the last layer's attention, or in its place
        return f"{outer}.{first + shape.layers}.{2 if block in shape.attended else 1}.{match['rest']}"
    return None


def autoencoder_key(key: str, levels: int) -> str | None:
    """The layout's key of one of diffusers' for the same tensor of the autoencoder; None if it has none."""
    if match := _CODER_BLOCK.fullmatch(key):
        encodes, block = match["coder"] == "encoder", int(match["block"])
        outer = f"{match['coder']}.{'down' if encodes else 'up'}.{block if encodes else levels - 1 - block}"
        if match["kind"] == "resnets":
            return f"{outer}.block.{match['layer']}.{_shortcut(match['rest'])}"
        return f"{outer}.{'down' if encodes else 'up'}sample.{match['rest']}" if "samplers" in match["kind"] else None
    if match := _CODER_MIDDLE.fullmatch(key):
        if match["kind"] == "resnets":
            return f"{match['coder']}.mid.block_{int(match['layer']) + 1}.{_shortcut(match['rest'])}"
        return f"{match['coder']}.mid.attn_1.{_renamed(match['rest'], _CODER_ATTENTION)}"
    outer, _, rest = key.partition(".")
    if outer in ("encoder", "decoder"):
        return f"{outer}.{rest.replace('conv_norm_out.', 'norm_out.')}" if rest.startswith("conv_") else None
    return key if outer in ("quant_conv", "post_quant_conv") else None


def _autoencoder_slot(key: str, levels: int) -> Slot | None:
    inner = autoencoder_key(key, levels)
    if inner is None:
        return None
    is_attention = ".mid.attn_1." in inner and ".norm." not in inner and inner.endswith(".weight")
    return Slot(AUTOENCODER + inner, "convolution" if is_attention else "same")


def _open_clip_slot(key: str, prefix: str) -> Slot | None:
    if key in _OPEN_CLIP:
        return Slot(prefix + _OPEN_CLIP[key], "transposed" if key == "text_projection.weight" else "same")
    match = _OPEN_CLIP_LAYER.fullmatch(key)
    if match is None:
        return None
    layer = f"{prefix}transformer.resblocks.{match['layer']}."
    if match["part"] in _JOINED:
        return Slot(f"{layer}attn.in_proj_{match['kind']}", "joined", _JOINED[match["part"]])
    part = _OPEN_CLIP_PARTS.get(match["part"])
    return None if part is None else Slot(f"{layer}{part}.{match['kind']}")


def _renamed(rest: str, table: Mapping[str, str]) -> str:
    begin = next((begin for begin in table if rest.startswith(begin)), "")
    return table.get(begin, "") + rest.removeprefix(begin)


def _shortcut(rest: str) -> str:
    return rest.replace("conv_shortcut.", "nin_shortcut.")
