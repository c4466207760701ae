"""Names in single-file checkpoints (the LDM layout of SD 1.x, 2.x and XL) and diffusers' names for the same tensors.

The layout numbers the UNet's blocks through, downsamplers included; OpenCLIP's attention holds queries, keys and values
in one tensor, and its projection is stored transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from erase.models._weights import Place

Shapes = Mapping[str, tuple[int, ...]]

UNET = "model.diffusion_model."
_OUTER = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "label_emb.0.0.": "add_embedding.linear_1.",
    "label_emb.0.2.": "add_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
    "middle_block.0.": "mid_block.resnets.0.",
    "middle_block.1.": "mid_block.attentions.0.",
    "middle_block.2.": "mid_block.resnets.1.",
}
_RESNET = {
    "in_layers.0.": "norm1.",
    "in_layers.2.": "conv1.",
    "out_layers.0.": "norm2.",
    "out_layers.3.": "conv2.",
    "emb_layers.1.": "time_emb_proj.",
    "skip_connection.": "conv_shortcut.",
}
_BLOCK = re.compile(r"(?P<side>input|output)_blocks\.(?P<number>\d+)\.(?P<part>\d)\.(?P<rest>.+)")
_OPEN_CLIP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_LAYER = re.compile(r"transformer\.resblocks\.(?P<layer>\d+)\.(?P<part>.+)\.(?P<kind>weight|bias)")
_OPEN_CLIP_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_FUSED = re.compile(r"transformer\.resblocks\.(?P<layer>\d+)\.attn\.in_proj_(?P<kind>weight|bias)")


def unet_places(file: Path, shapes: Shapes) -> dict[str, Place]:
    """Where each tensor of the UNet lies, by diffusers' name."""
    per_block = _layers_per_block(shapes)
    inner = {key.removeprefix(UNET): key for key in shapes if key.startswith(UNET)}
    named = ((unet_name(short, per_block), key) for short, key in inner.items())
    return {name: Place(file, key, shapes[key]) for name, key in named if name is not None}


def unet_name(key: str, per_block: int) -> str | None:
    """Diffusers' name of a tensor of the UNet whose blocks hold so many layers; None if it has none."""
    for begin, name in _OUTER.items():
        if key.startswith(begin):
            return name + _resnet_name(key.removeprefix(begin))
    match = _BLOCK.fullmatch(key)
    if match is None:
        return None
    down, number, part, rest = match["side"] == "input", int(match["number"]), int(match["part"]), match["rest"]
    block, layer = divmod(number - 1 if down else number, per_block + 1)
    outer = f"{'down' if down else 'up'}_blocks.{block}."
    if down and rest.startswith("op."):
        return f"{outer}downsamplers.0.conv.{rest.removeprefix('op.')}"
    if not down and rest.startswith("conv."):  # behind the attention, or in its place where a block has none
        return f"{outer}upsamplers.0.{rest}"
    return f"{outer}resnets.{layer}.{_resnet_name(rest)}" if part == 0 else f"{outer}attentions.{layer}.{rest}"


def clip_places(file: Path, shapes: Shapes, *, prefix: str) -> dict[str, Place]:
    """Where each tensor of a CLIP text encoder lies, by its name without `text_model.`."""
    keys = {key.removeprefix(prefix).removeprefix("text_model."): key for key in shapes if key.startswith(prefix)}
    return {name: Place(file, key, shapes[key]) for name, key in keys.items() if not name.endswith("position_ids")}


def open_clip_places(file: Path, shapes: Shapes, *, prefix: str, layers: int) -> dict[str, Place]:
    """Where each tensor of the first layers of an OpenCLIP text encoder lies, by diffusers' name."""
    places: dict[str, Place] = {}
    for key in (key for key in shapes if key.startswith(prefix)):
        for name, place in _open_clip(key.removeprefix(prefix), Place(file, key, shapes[key]), layers=layers):
            places[name] = place
    return places


def open_clip_layers(shapes: Shapes, *, prefix: str) -> int:
    """How many layers an OpenCLIP text encoder has in the file."""
    matches = (_FUSED.fullmatch(key.removeprefix(prefix)) for key in shapes if key.startswith(prefix))
    return len({match["layer"] for match in matches if match})


def _open_clip(key: str, place: Place, *, layers: int) -> Iterator[tuple[str, Place]]:
    if key == "text_projection":
        yield "text_projection.weight", Place(place.file, place.key, place.shape[::-1], transposed=True)
    elif key in _OPEN_CLIP:
        yield _OPEN_CLIP[key], place
    elif (match := _FUSED.fullmatch(key)) and int(match["layer"]) < layers:
        rows = place.shape[0] // 3
        for number, letter in enumerate("qkv"):
            shape, third = (rows, *place.shape[1:]), (number * rows, (number + 1) * rows)
            name = f"encoder.layers.{match['layer']}.self_attn.{letter}_proj.{match['kind']}"
            yield name, Place(place.file, place.key, shape, rows=third)
    elif (match := _OPEN_CLIP_LAYER.fullmatch(key)) and int(match["layer"]) < layers:
        part = _OPEN_CLIP_PARTS.get(match["part"], match["part"])
        yield f"encoder.layers.{match['layer']}.{part}.{match['kind']}", place


def _resnet_name(rest: str) -> str:
    for begin, name in _RESNET.items():
        if rest.startswith(begin):
            return name + rest.removeprefix(begin)
    return rest


def _layers_per_block(shapes: Shapes) -> int:
    """Layers in each of the UNet's blocks: its first downsampler stands behind those of the first."""
    pattern = re.compile(rf"{re.escape(UNET)}input_blocks\.(\d+)\.0\.op\.weight")
    numbers = [int(match[1]) for match in map(pattern.fullmatch, shapes) if match]
    return min(numbers) - 1 if numbers else 2
