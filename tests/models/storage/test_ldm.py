"""The table of single-file keys is one to one, read as it is written, and diffusers' own loader turns it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from erase.errors import BadModel
from erase.models.identity import canonical
from erase.models.storage.ldm import (
    AUTOENCODER,
    OPEN_CLIP_XL,
    TEXTS,
    UNET,
    AutoencoderShape,
    Slot,
    UNetShape,
    places,
    slots,
)
from tests.tiny import tiny_text_config, tiny_tokenizer, tiny_unet


def bare_unet(attended: list[bool], layers: int, *, is_xl: bool, heads: int = 1) -> UNet2DConditionModel:
    """A UNet of any depth whose weights take no memory."""
    more: dict[str, Any] = {}
    if is_xl:
        more = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 8,
        }
    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=(8,) * len(attended),
            layers_per_block=layers,
            cross_attention_dim=8,
            attention_head_dim=heads,
            norm_num_groups=4,
            down_block_types=tuple("CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attended),
            up_block_types=tuple("CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attended)),
            **more,
        )


@settings(max_examples=12, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=4), st.integers(1, 3), st.booleans())
def test_diffusers_turns_the_unets_keys_back_whatever_its_shape(attended: list[bool], layers: int, is_xl: bool) -> None:
    unet = bare_unet(attended, layers, is_xl=is_xl)
    names = [f"unet.{key}" for key in unet.state_dict()]
    found = slots(names, "stable-diffusion-xl")
    assert len({slot.key for slot in found.values()}) == len(names)  # one to one
    assert all(slot.key.startswith(UNET) for slot in found.values())
    stored = {slot.key: name for name, slot in found.items()}
    back = convert_ldm_unet_checkpoint(stored, dict(unet.config))
    assert {f"unet.{key}": name for key, name in back.items()} == {name: name for name in names}


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 4), st.integers(1, 2))
def test_diffusers_turns_the_autoencoders_keys_back(levels: int, layers: int) -> None:
    with torch.random.fork_rng():
        vae = AutoencoderKL(
            block_out_channels=(8,) * levels,
            layers_per_block=layers,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        )
    weights = {f"vae.{key}": value for key, value in vae.state_dict().items()}
    found = slots([*weights, "unet.down_blocks.0.resnets.0.conv1.weight"], "stable-diffusion")
    found.pop("unet.down_blocks.0.resnets.0.conv1.weight")
    assert len({slot.key for slot in found.values()}) == len(weights)
    stored = {found[name].key: found[name].stored(value) for name, value in weights.items()}
    assert all(key.startswith(AUTOENCODER) for key in stored)
    assert stored[f"{AUTOENCODER}encoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1)
    back = convert_ldm_vae_checkpoint(stored, dict(vae.config))
    assert back.keys() == vae.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in vae.state_dict().items())


def test_older_names_of_the_autoencoders_attention_have_the_same_places() -> None:
    begin, resnet = "vae.encoder.mid_block.attentions.0.", "unet.down_blocks.0.resnets.0.conv1.weight"
    today = slots(
        [resnet, *(f"{begin}{part}.weight" for part in ("to_q", "to_k", "to_v", "to_out.0"))], "stable-diffusion"
    )
    older = slots(
        [resnet, *(f"{begin}{part}.weight" for part in ("query", "key", "value", "proj_attn"))], "stable-diffusion"
    )
    assert {slot.key for slot in today.values()} == {slot.key for slot in older.values()}


def test_diffusers_turns_open_clips_keys_back() -> None:
    config = tiny_text_config(tiny_tokenizer())
    config.projection_dim = 32
    encoder = CLIPTextModelWithProjection(config)
    weights = {canonical(key): value for key, value in encoder.state_dict().items() if "position_ids" not in key}
    names = {f"text_encoder_2.{key}": value for key, value in weights.items()}
    found = slots([*names, "unet.down_blocks.0.resnets.0.conv1.weight"], "stable-diffusion-xl")
    thirds = {(found[name].key, found[name].third) for name in names}
    assert len(thirds) == len(names)
    stored: dict[str, torch.Tensor] = {}
    for name, value in sorted(names.items(), key=lambda pair: found[pair[0]].third or 0):
        slot = found[name]
        stored[slot.key] = torch.cat([*([stored[slot.key]] if slot.key in stored else []), slot.stored(value)])
    assert f"{OPEN_CLIP_XL}transformer.resblocks.0.attn.in_proj_weight" in stored
    back = convert_open_clip_checkpoint(encoder, stored, prefix=OPEN_CLIP_XL)
    assert {canonical(key) for key in back} == weights.keys()
    assert all(torch.equal(value, weights[canonical(key)]) for key, value in back.items())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.sets(st.integers(0, 4)))
def test_the_tables_are_one_to_one_whatever_the_shape(blocks: int, layers: int, attended: set[int]) -> None:
    shapes = (UNetShape(blocks, layers, frozenset(attended & set(range(blocks)))), AutoencoderShape(blocks, layers))
    for pairs in map(list, (shape.pairs() for shape in shapes)):
        ours, theirs = zip(*pairs, strict=True)
        assert len(set(ours)) == len(set(theirs)) == len(pairs) > 20


@settings(max_examples=12, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=4), st.integers(1, 3), st.sampled_from(sorted(TEXTS)))
def test_what_is_written_is_what_is_read(attended: list[bool], layers: int, family: str) -> None:
    is_xl = family == "stable-diffusion-xl"
    shapes = {f"unet.{key}": tuple(v.shape) for key, v in bare_unet(attended, layers, is_xl=is_xl).state_dict().items()}
    for part, inner in TEXTS[family].items():
        encoder = (CLIPTextModelWithProjection if inner.projected else CLIPTextModel)(
            tiny_text_config(tiny_tokenizer())
        )
        shapes |= {f"{part}.{canonical(key)}": tuple(value.shape) for key, value in encoder.state_dict().items()}
    shapes = {name: shape for name, shape in shapes.items() if "position_ids" not in name}
    found, file = slots(shapes, family), Path("model.safetensors")
    stored = {}
    for name, slot in found.items():
        rows, *columns = shapes[name][::-1] if slot.form == "transposed" else shapes[name]
        stored[slot.key] = (3 * rows if slot.third is not None else rows, *columns)
    read = {
        f"{part}.{key}": place for part, keys in places(file, stored, family).items() for key, place in keys.items()
    }
    assert read == {name: slot.place(file, stored[slot.key]) for name, slot in found.items()}
    assert {name: place.shape for name, place in read.items()} == shapes


def test_naming_twice_is_naming_once() -> None:
    keys = ["text_model.encoder.layers.0.mlp.fc1.weight", "encoder.layers.0.mlp.fc1.weight"]
    assert {canonical(canonical(key)) for key in keys} == {canonical(key) for key in keys} == {keys[1]}
    names = [f"unet.{key}" for key in tiny_unet().state_dict()]
    assert (
        slots(names, "stable-diffusion")
        == slots(list(reversed(names)), "stable-diffusion")
        == slots([*names, *names], "stable-diffusion")
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [  # from a published checkpoint of Stable Diffusion 1.x: layers 2, four blocks, the last down and first up plain
        ("unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.8.1.transformer"),
        ("unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.weight", "output_blocks.3.1.transformer"),
        ("unet.up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("unet.up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),
        ("unet.mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"),
        ("unet.down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias"),
    ],
)
def test_names_are_those_of_published_checkpoints(name: str, key: str) -> None:
    unet = bare_unet([True, True, True, False], 2, is_xl=False)
    assert slots([f"unet.{one}" for one in unet.state_dict()], "stable-diffusion")[name].key.startswith(UNET + key)


@pytest.mark.parametrize(
    "name", ["unet.something.weight", "image_encoder.a.weight", "vae.a.weight", "text_encoder_2.a.weight"]
)
def test_what_has_no_place_is_an_error_and_not_left_out(name: str) -> None:
    resnet = "unet.down_blocks.0.resnets.0.conv1.weight"
    with pytest.raises(BadModel, match=f"{name} has no place"):
        slots([resnet, name], "stable-diffusion")


def test_blocks_of_different_depths_are_refused() -> None:
    with pytest.raises(BadModel, match="one number"):
        UNetShape.of(["down_blocks.0.resnets.0.a.b", "down_blocks.1.resnets.0.a.b", "down_blocks.1.resnets.1.a.b"])


def test_a_linear_weight_becomes_a_convolution_once() -> None:
    slot, weight = Slot("a", "convolution"), torch.ones(2, 2)
    assert slot.stored(weight).shape == slot.stored(slot.stored(weight)).shape == (2, 2, 1, 1)
