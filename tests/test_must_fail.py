"""A corpus of files that must not be read: each is one clear error, whichever way it comes in."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.edit import METADATA_KEY, Edit
from erase.errors import BadEdit, BadModel, BadWeights, EraseError, PickleRefused
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.lora import lora
from erase.export.parts.difference import compare
from erase.export.parts.inspection import look_at
from erase.models import Model, open_model
from tests.export.test_lora import made

UNET = "unet/diffusion_pytorch_model.safetensors"
F32 = {"dtype": "F32", "shape": [2]}


def raw(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a file with a header of our making, which may lie about its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


CORPUS: dict[str, bytes] = {
    "empty": b"",
    "no header": b"\x01\x02",
    "header longer than the file": raw({}, length=10_000),
    "header of 2^63 bytes": raw({}, length=2**63),
    "header that is no JSON": raw(b"{not json}"),
    "header that is a list": raw([]),
    "overlapping offsets": raw({"a": F32 | {"data_offsets": [0, 8]}, "b": F32 | {"data_offsets": [4, 12]}}, bytes(12)),
    "a hole": raw({"a": F32 | {"data_offsets": [0, 8]}, "b": F32 | {"data_offsets": [16, 24]}}, bytes(24)),
    "data beyond the offsets": raw({"a": F32 | {"data_offsets": [0, 8]}}, bytes(64)),
    "truncated data": raw({"a": F32 | {"data_offsets": [0, 8]}}, bytes(4)),
    "offsets backwards": raw({"a": F32 | {"data_offsets": [8, 0]}}, bytes(8)),
    "shape and offsets that differ": raw({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]}}, bytes(8)),
    "an unknown dtype": raw({"a": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "a key twice": raw(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        bytes(16),
    ),
    "a pickle by another name": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
    "a web page": b"<!doctype html><html><body>404</body></html>",
}


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_a_damaged_file_is_one_line_whichever_way_it_comes_in(
    name: str, model: Model, tiny_copy: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(CORPUS[name])
    (tiny_copy / UNET).write_bytes(CORPUS[name])
    ways: list[tuple[Callable[[], Any], type[EraseError]]] = [
        (lambda: Edit.load(file), BadEdit),
        (lambda: look_at(file), BadWeights),
        (lambda: open_model(file), BadWeights),
        (lambda: compare(file, file), BadWeights),
        (lambda: checkpoint(model, made(model), tmp_path / "out", original=str(file)), BadWeights),
        (lambda: open_model(tiny_copy).sites(), BadWeights),
        (lambda: look_at(tiny_copy), BadWeights),
    ]
    for read, error in ways:
        with pytest.raises(PickleRefused if "pickle" in name else error) as raised:
            read()
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_tensor_that_is_not_finite_is_told_in_whichever_part_it_is(
    model: Model, tiny_copy: Path, tmp_path: Path
) -> None:
    original = checkpoint(model, made(model).scaled(0.0), tmp_path / "original")
    tensors = load_file(original)
    key = next(key for key in tensors if key.endswith("attn2.to_k.weight"))
    tensors[key][0, 0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(BadWeights, match="NaN or infinite"):
        checkpoint(model, made(model), tmp_path / "out", original=str(tmp_path / "nan.safetensors"))
    weights = load_file(tiny_copy / UNET)
    weights[next(key for key in weights if key.endswith("attn2.to_v.weight"))][0, 0] = float("inf")
    save_file(weights, tiny_copy / UNET)
    with pytest.raises(BadWeights, match="NaN or infinite"):
        _ = open_model(tiny_copy).fingerprint


@pytest.mark.parametrize("shard", ["../../secret.safetensors", "/etc/secret.safetensors", "a/b.safetensors", "..", ""])
def test_a_shard_that_leads_out_of_its_folder_is_not_read(shard: str, tiny_copy: Path) -> None:
    index = tiny_copy / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": shard}}), encoding="utf-8")
    with pytest.raises(BadWeights, match="do not trust it"):
        open_model(tiny_copy).sites()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}'])
def test_an_index_of_shards_that_is_none_is_one_line(text: str, tiny_copy: Path) -> None:
    (tiny_copy / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadWeights, match="is not an index of shards"):
        open_model(tiny_copy).sites()


UNET_OF_FILE = "model.diffusion_model.input_blocks"


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ([f"{UNET_OF_FILE}.999999999.0.op.weight"], "no UNet's"),
        ([f"{UNET_OF_FILE}.{number}.0.op.weight" for number in (7, 8)], "no UNet's"),
        (["first_stage_model.encoder.down.999999999.block.0.norm1.weight"], "autoencoder has more"),
        (["first_stage_model.decoder.up.0.block.999999999.norm1.weight"], "autoencoder has more"),
    ],
)
def test_a_single_file_of_impossible_numbers_is_not_followed(
    more: list[str], match: str, model: Model, tmp_path: Path
) -> None:
    tensors = load_file(checkpoint(model, made(model).scaled(0.0), tmp_path / "base"))
    save_file(tensors | {key: torch.zeros(1) for key in more}, tmp_path / "odd.safetensors")
    with pytest.raises(BadModel, match=match):
        open_model(tmp_path / "odd.safetensors").weights("unet")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_quantised_single_file_is_refused_and_nothing_is_left(
    dtype: torch.dtype, model: Model, tmp_path: Path
) -> None:
    tensors = load_file(checkpoint(model, made(model).scaled(0.0), tmp_path / "base"))
    less = {key: value.to(dtype) if "attn2.to_k." in key else value for key, value in tensors.items()}
    save_file(less, tmp_path / "less.safetensors")
    opened = open_model(tmp_path / "less.safetensors", config=model.path)
    for write in (checkpoint, folder, lora) if dtype == torch.int8 else (checkpoint, folder):
        with pytest.raises(BadWeights, match="quantised"):
            write(opened, made(opened), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.safetensors", "less.safetensors"]


def test_a_link_out_of_the_model_is_not_copied_into_an_export(tiny_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("secret", encoding="utf-8")
    (tiny_copy / "vae/extra.json").symlink_to(tmp_path / "secret.json")
    model = open_model(tiny_copy)
    with pytest.raises(BadModel, match="leads out of the model"):
        folder(model, made(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_named(tiny_copy: Path, tmp_path: Path) -> None:
    index = tiny_copy / "model_index.json"
    index.write_text(
        json.dumps(json.loads(index.read_text(encoding="utf-8")) | {"_class_name": "KandinskyPipeline"}),
        encoding="utf-8",
    )
    with pytest.raises(BadModel, match="KandinskyPipeline"):
        open_model(tiny_copy)


def test_a_unet_with_a_loras_layers_in_it_is_refused(tiny_copy: Path) -> None:
    tensors = load_file(tiny_copy / UNET)
    kept = {
        key.replace("attn2.to_k.", "attn2.to_k.base_layer.").replace("attn2.to_v.", "attn2.to_v.base_layer."): value
        for key, value in tensors.items()
    }
    save_file(kept, tiny_copy / UNET)
    with pytest.raises(BadModel, match=r"lacks the tensor .*attn2\.to_k\.weight"):
        open_model(tiny_copy).sites()


@pytest.mark.parametrize("metadata", ["", "{", "[]", "{}", '{"sites": [["a"]]}', '{"sites": 3}'])
def test_an_edit_with_damaged_metadata_is_one_line(metadata: str, tmp_path: Path) -> None:
    save_file({"text_map.0.up": torch.zeros(2, 1)}, tmp_path / "a.safetensors", metadata={METADATA_KEY: metadata})
    with pytest.raises(BadEdit):
        Edit.load(tmp_path / "a.safetensors")
