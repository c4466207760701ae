"""Where the tensors of a diffusers folder stand in a single-file checkpoint (the LDM layout of SD 1.x, 2.x and XL).

The layout numbers the UNet's blocks through, downsamplers included; counts the decoder's from the other end; stores the
autoencoder's attention as 1 x 1 convolutions; and OpenCLIP's queries, keys and values as one tensor, its projection
transposed. One table of beginnings serves both directions, so that what is written is what is read. Names are those of
an `Edit`: the component in front, text encoders without `text_model.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from erase.errors import BadModel
from erase.models.storage.weights import Form, Place, laid

Shapes = Mapping[str, tuple[int, ...]]
Pairs = Iterator[tuple[str, str]]  # diffusers' beginning of a name and the layout's

UNET, AUTOENCODER = "model.diffusion_model.", "first_stage_model."


@dataclass(frozen=True)
class Inner:
    """A text encoder inside a checkpoint: where it begins, and whether it is OpenCLIP's.

    `layers`: so many are read at most. `projected`: its projection is read.
    """

    prefix: str
    open_clip: bool = False
    layers: int = 1000
    projected: bool = False


CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
CLIP_1, OPEN_CLIP_2 = "cond_stage_model.transformer.", "cond_stage_model.model."
# Each family's text encoders. OpenCLIP's of the second generation has a 24th layer, which nothing reads.
TEXTS: Mapping[str, Mapping[str, Inner]] = MappingProxyType(
    {
        "stable-diffusion": {"text_encoder": Inner(CLIP_1)},
        "stable-diffusion-2": {"text_encoder": Inner(OPEN_CLIP_2, True, layers=23)},
        "stable-diffusion-xl": {
            "text_encoder": Inner(CLIP_XL),
            "text_encoder_2": Inner(OPEN_CLIP_XL, True, projected=True),
        },
    }
)
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
_CODER_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
# Names under which older folders store the autoencoder's attention.
OLDER = {"query.": "to_q.", "key.": "to_k.", "value.": "to_v.", "proj_attn.": "to_out.0."}
_OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.": "ln_final.",
    "text_projection.weight": "text_projection",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}
_MOST = 200  # blocks or layers that a model may have; a file that claims more is not followed
_THIRDS = ("q", "k", "v")
_THIRD = re.compile(r"encoder\.layers\.(?P<layer>\d+)\.self_attn\.(?P<third>[qkv])_proj\.(?P<kind>weight|bias)")
_JOINED = re.compile(r"transformer\.resblocks\.(?P<layer>\d+)\.attn\.in_proj_(?P<kind>weight|bias)")


@dataclass(frozen=True)
class Slot:
    """A tensor's place in the file: its key, in which form, and which third of a joined tensor it is, if one."""

    key: str
    form: Form = "same"
    third: int | None = None

    def stored(self, value: Tensor) -> Tensor:
        """The value as the file holds it; of a joined tensor, its own third."""
        return laid(value, self.form)

    def place(self, file: Path, shape: tuple[int, ...]) -> Place:
        """Where the tensor lies in a file whose tensor of this key has a shape."""
        if self.third is not None:
            rows = shape[0] // len(_THIRDS)
            return Place(file, self.key, (rows, *shape[1:]), rows=(self.third * rows, (self.third + 1) * rows))
        plain = {"same": shape, "transposed": shape[::-1], "convolution": shape[:2]}[self.form]
        return Place(file, self.key, plain, form=self.form)


@dataclass(frozen=True)
class UNetShape:
    """What the numbering of blocks depends on: how many, layers in each, and which of the way up have attention."""

    blocks: int
    layers: int
    attended: frozenset[int]

    @staticmethod
    def of(keys: Iterable[str]) -> UNetShape:
        """The shape that diffusers' keys show; raises BadModel if the blocks have different numbers of layers."""
        keys = list(keys)
        counts = _numbers(r"down_blocks\.(\d+)\.resnets\.(\d+)\..+", keys)
        if len(set(counts.values())) != 1:
            raise BadModel(
                f"the UNet's blocks have {sorted(set(counts.values()))} layers; a single file has one number."
            )
        attended = _numbers(r"up_blocks\.(\d+)\.attentions\.(\d+)\..+", keys)
        return UNetShape(1 + max(counts), next(iter(counts.values())), frozenset(attended))

    @staticmethod
    def in_file(keys: Iterable[str]) -> UNetShape:
        """The shape that the layout's keys show; raises BadModel if no number of layers fits them."""
        keys = list(keys)
        numbers = _numbers(r"input_blocks\.(\d+)\.(\d+)\..+", keys)
        downs = len(_numbers(r"input_blocks\.(\d+)\.0\.op\.()weight", keys))
        layers, rest = divmod(max(numbers, default=0) - downs, downs + 1)
        if rest or layers < 1 or max(numbers) > _MOST:
            raise BadModel(
                f"the UNet has {len(numbers)} input blocks up to number {max(numbers, default=0)}, {downs} of them "
                "downsamplers, which is no UNet's; download the model again."
            )
        up = _numbers(r"output_blocks\.(\d+)\.1\.()norm\..+", keys)
        return UNetShape(downs + 1, layers, frozenset(number // (layers + 1) for number in up))

    def pairs(self) -> Pairs:
        """The beginnings of every tensor of such a UNet."""
        yield from _UNET_OUTER.items()
        for number in (0, 1):
            yield from _resnet(f"mid_block.resnets.{number}.", f"middle_block.{2 * number}.")
        for block in range(self.blocks):
            first = block * (self.layers + 1)
            for layer in range(self.layers):
                number = first + layer + 1
                yield from _resnet(f"down_blocks.{block}.resnets.{layer}.", f"input_blocks.{number}.0.")
                yield f"down_blocks.{block}.attentions.{layer}.", f"input_blocks.{number}.1."
            yield f"down_blocks.{block}.downsamplers.0.conv.", f"input_blocks.{first + self.layers + 1}.0.op."
            for layer in range(self.layers + 1):
                yield from _resnet(f"up_blocks.{block}.resnets.{layer}.", f"output_blocks.{first + layer}.0.")
                if block in self.attended:
                    yield f"up_blocks.{block}.attentions.{layer}.", f"output_blocks.{first + layer}.1."
            behind = 2 if block in self.attended else 1  # the upsampler: behind the last attention or in its place
            yield f"up_blocks.{block}.upsamplers.0.", f"output_blocks.{first + self.layers}.{behind}."


@dataclass(frozen=True)
class AutoencoderShape:
    """What the numbering of an autoencoder's blocks depends on: its levels, and the most layers in one."""

    levels: int
    layers: int

    @staticmethod
    def of(keys: Iterable[str]) -> AutoencoderShape:
        """The shape that diffusers' keys show, or the layout's."""
        pattern = r"(?:en|de)coder\.(?:down|up)(?:_blocks)?\.(\d+)\.(?:resnets|block)\.(\d+)\..+"
        counts = _numbers(pattern, keys)
        if max([*counts, *counts.values()], default=0) > _MOST:
            raise BadModel("the autoencoder has more levels or layers than any has; download the model again.")
        return AutoencoderShape(1 + max(counts, default=0), max(counts.values(), default=0))

    def pairs(self) -> Pairs:
        """The beginnings of every tensor of such an autoencoder."""
        for coder in ("encoder", "decoder"):
            yield from ((f"{coder}.{end}", f"{coder}.{end}") for end in ("conv_in.", "conv_out."))
            yield f"{coder}.conv_norm_out.", f"{coder}.norm_out."
            for number in (0, 1):
                yield f"{coder}.mid_block.resnets.{number}.", f"{coder}.mid.block_{number + 1}."
            for old, new in _CODER_ATTENTION.items():
                yield f"{coder}.mid_block.attentions.0.{old}", f"{coder}.mid.attn_1.{new}"
        yield from ((end, end) for end in ("quant_conv.", "post_quant_conv."))
        for level in range(self.levels):
            yield from self._block(f"encoder.down_blocks.{level}.", f"encoder.down.{level}.")
            yield from self._block(f"decoder.up_blocks.{level}.", f"decoder.up.{self.levels - 1 - level}.")

    def _block(self, ours: str, theirs: str) -> Pairs:
        for layer in range(self.layers):
            yield f"{ours}resnets.{layer}.", f"{theirs}block.{layer}."
            yield f"{ours}resnets.{layer}.conv_shortcut.", f"{theirs}block.{layer}.nin_shortcut."
        side = "down" if "encoder" in ours else "up"
        yield f"{ours}{side}samplers.0.", f"{theirs}{side}sample."


def slots(names: Iterable[str], family: str) -> dict[str, Slot]:
    """Where each tensor of a model stands in its single file; raises BadModel for a tensor that has no place there."""
    names = sorted(set(names))
    unet, coder = ([name.partition(".")[2] for name in names if name.startswith(part)] for part in ("unet.", "vae."))
    tables = {
        "unet": dict(UNetShape.of(unet).pairs()) if unet else {},
        "vae": dict(AutoencoderShape.of(coder).pairs()),
    }
    found = {name: _slot(name, family, tables=tables) for name in names}
    missing = [name for name, slot in found.items() if slot is None]
    if missing:
        raise BadModel(f"{missing[0]} has no place in a single file of this family; export it as a folder.")
    return {name: slot for name, slot in found.items() if slot is not None}


def places(file: Path, shapes: Shapes, family: str) -> dict[str, dict[str, Place]]:
    """Where each tensor of each part lies in a file whose tensors have these shapes, by the name without the part.

    What stands in the file and has no place in a folder is not among them. Raises BadModel.
    """
    unet, coder = _inner(UNET, shapes), _inner(AUTOENCODER, shapes)
    found = {
        "unet": _plain_places(file, unet, part="unet", pairs=UNetShape.in_file(unet).pairs()),
        "vae": _plain_places(file, coder, part="vae", pairs=AutoencoderShape.of(coder).pairs()),
    }
    for part, inner in TEXTS[family].items():
        text = [(key, slot) for short in _inner(inner.prefix, shapes) for key, slot in _text_names(short, inner)]
        found[part] = {name: slot.place(file, shapes[slot.key]) for name, slot in text}
    return found


def _plain_places(file: Path, keys: Shapes, *, part: str, pairs: Pairs) -> dict[str, Place]:
    prefix = UNET if part == "unet" else AUTOENCODER
    back = {theirs: ours for ours, theirs in pairs}
    named = {_swapped(key, back): key for key in keys}
    return {
        name: Slot(prefix + key, _form(part, name)).place(file, keys[key])
        for name, key in named.items()
        if name is not None
    }


def _slot(name: str, family: str, *, tables: Mapping[str, Mapping[str, str]]) -> Slot | None:
    part, _, key = name.partition(".")
    if part in TEXTS[family]:
        return _text_slot(key, TEXTS[family][part])
    today = current(part, key)
    inner = _swapped(today, tables.get(part, {}))
    return None if inner is None else Slot((UNET if part == "unet" else AUTOENCODER) + inner, _form(part, today))


def current(part: str, key: str) -> str:
    """A key as folders of today spell it."""
    begin, middle, rest = key.partition(".mid_block.attentions.0.")
    return f"{begin}{middle}{_swapped(rest, OLDER) or rest}" if part == "vae" and middle else key


def _form(part: str, key: str) -> Form:
    is_attention = part == "vae" and ".mid_block.attentions." in key and ".group_norm." not in key
    return "convolution" if is_attention and key.endswith(".weight") else "same"


def _text_slot(key: str, inner: Inner) -> Slot | None:
    if not inner.open_clip:
        return Slot(f"{inner.prefix}text_model.{key}")
    if match := _THIRD.fullmatch(key):
        joined = f"{inner.prefix}transformer.resblocks.{match['layer']}.attn.in_proj_{match['kind']}"
        return Slot(joined, third=_THIRDS.index(match["third"]))
    layer, rest = _layer_of(key, "encoder.layers.")
    stored = _swapped(rest, _OPEN_CLIP_LAYER if layer else _OPEN_CLIP)
    if stored is None:
        return None
    begin = f"transformer.resblocks.{layer}." if layer else ""
    return Slot(f"{inner.prefix}{begin}{stored}", "transposed" if key == "text_projection.weight" else "same")


def _text_names(key: str, inner: Inner) -> Iterator[tuple[str, Slot]]:
    """The names of the tensors that a file holds under a key of a text encoder, each with its place."""
    stored = inner.prefix + key
    if not inner.open_clip:
        if not key.endswith("position_ids"):
            yield key.removeprefix("text_model."), Slot(stored)
        return
    layer, rest = _layer_of(key, "transformer.resblocks.")
    if (layer and int(layer) >= inner.layers) or (key == "text_projection" and not inner.projected):
        return
    if match := _JOINED.fullmatch(key):
        for number, letter in enumerate(_THIRDS):
            yield f"encoder.layers.{layer}.self_attn.{letter}_proj.{match['kind']}", Slot(stored, third=number)
        return
    table = _OPEN_CLIP_LAYER if layer else _OPEN_CLIP
    name = _swapped(rest, {theirs: ours for ours, theirs in table.items()})
    if name is not None:
        form: Form = "transposed" if key == "text_projection" else "same"
        yield (f"encoder.layers.{layer}.{name}" if layer else name), Slot(stored, form)


def _layer_of(key: str, begin: str) -> tuple[str, str]:
    """The number of a key's layer and what is behind it; no number for a key of no layer."""
    if not key.startswith(begin):
        return "", key
    number, _, rest = key.removeprefix(begin).partition(".")
    return number, rest


def _swapped(text: str, table: Mapping[str, str]) -> str | None:
    """The text with its longest beginning that the table knows exchanged; None if it knows none."""
    if text in table:
        return table[text]
    end = text.rfind(".")
    while end >= 0:
        if text[: end + 1] in table:
            return table[text[: end + 1]] + text[end + 1 :]
        end = text.rfind(".", 0, end)
    return None


def _resnet(ours: str, theirs: str) -> Pairs:
    yield from ((ours + old, theirs + new) for old, new in _UNET_RESNET.items())


def _inner(prefix: str, shapes: Shapes) -> Shapes:
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def _numbers(pattern: str, keys: Iterable[str]) -> dict[int, int]:
    """By the first number that a pattern finds in keys, how many of the second there are."""
    matches = [match for match in map(re.compile(pattern).fullmatch, keys) if match]
    counts: dict[int, int] = {}
    for match in matches:
        counts[int(match[1])] = max(counts.get(int(match[1]), 0), int(match[2] or 0) + 1)
    return counts
