"""An exported folder is its source byte for byte, but for the tensors that the edit changes."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from erase.edit import Edit, fingerprint_of
from erase.errors import BadEdit, BadModel, ModelMismatch, RunConflict
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.parts.undo import undo
from erase.models import Model, open_model
from tests.recipes import contents
from tests.tiny_edits import tiny_edit

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
DELTAS = ("unet.conv_in.bias", "text_encoder.final_layer_norm.bias")


def halved(source: Path) -> Path:
    for part in ("unet", "text_encoder", "vae"):
        (file,) = (source / part).glob("*.safetensors")
        save_file({key: value.half() for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    return source


@pytest.fixture(params=["float32", "float16"])
def source(request: pytest.FixtureRequest, tiny_copy: Path) -> Path:
    return tiny_copy if request.param == "float32" else halved(tiny_copy)


def exported(source: Path, target: Path) -> tuple[Edit, Path]:
    model = open_model(source)
    edit = tiny_edit(model, size=0.2, deltas=DELTAS)
    return edit, folder(model, edit, target)


def header(data: bytes) -> bytes:
    """The bytes of a safetensors file before its data."""
    (length,) = struct.unpack("<Q", data[:8])
    return data[: 8 + length]


def plain(file: Path) -> dict[str, torch.Tensor]:
    """A file's tensors, a text encoder's without `text_model.` before their keys."""
    return {key.removeprefix("text_model."): value for key, value in load_file(file).items()}


def test_only_the_edited_tensors_bytes_change(source: Path, tmp_path: Path) -> None:
    edit, target = exported(source, tmp_path / "out")
    before, after = contents(source), contents(target)
    assert set(after) - set(before) == {"manifest.json", "README.md", "recipe.yaml"}
    assert all(name.startswith("judge/") for name in set(before) - set(after))
    assert {name for name in after if name in before and before[name] != after[name]} == {UNET, TEXT}
    assert header(before[UNET]) == header(after[UNET])
    assert len(before[UNET]) == len(after[UNET])
    for file, part in ((UNET, "unet"), (TEXT, "text_encoder")):
        old, new = plain(source / file), plain(target / file)
        assert old.keys() == new.keys()
        changed = {f"{part}.{key}" for key in old if not torch.equal(old[key], new[key])}
        assert changed == {name for name in edit.touches if name.startswith(part)}
        assert all(old[key].dtype == new[key].dtype for key in old)


def test_plain_diffusers_loads_it_and_finds_what_applying_the_edit_gives(source: Path, tmp_path: Path) -> None:
    edit, target = exported(source, tmp_path / "out")
    dtype = load_file(source / UNET)["conv_in.bias"].dtype
    shipped = StableDiffusionPipeline.from_pretrained(target, dtype=dtype, local_files_only=True)
    pipe = open_model(source).pipeline(dtype)
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    applied = edit.apply(pipe)
    for part in ("unet", "text_encoder", "vae"):
        ours, theirs = getattr(pipe, part).state_dict(), getattr(shipped, part).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert fingerprint_of(shipped) == open_model(target).fingerprint != edit.info.base
    applied.undo()
    assert all(value.dtype == dtype and torch.equal(value, before[k]) for k, value in pipe.unet.state_dict().items())


def test_the_manifest_lists_every_file_and_every_changed_tensor_with_its_hash(source: Path, tmp_path: Path) -> None:
    edit, target = exported(source, tmp_path / "out")
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    files = {name: data for name, data in contents(target).items() if name != "manifest.json"}
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    }
    assert [record["tensor"] for record in manifest["changed"]] == list(edit.touches)
    for record in manifest["changed"]:
        part, _, key = record["tensor"].partition(".")
        assert record["file"] == {"unet": UNET, "text_encoder": TEXT}[part]
        for place, when in ((source, "before"), (target, "after")):
            tensors = load_file(place / record["file"])
            value = tensors[key if key in tensors else f"text_model.{key}"].float().numpy()
            text = f"{record['tensor']}{value.shape}".encode()
            assert record[f"sha256_{when}"] == hashlib.sha256(text + np.ascontiguousarray(value).tobytes()).hexdigest()
    assert manifest["edit"]["content"] == edit.content
    assert manifest["base"] == open_model(source).fingerprint
    assert manifest["left_out"] == []


def test_the_relative_change_is_the_norm_of_the_change_over_that_of_the_tensor(tiny_copy: Path, tmp_path: Path) -> None:
    weights = load_file(tiny_copy / UNET)
    save_file(weights | {"conv_in.bias": torch.zeros(16)}, tiny_copy / UNET, metadata={"format": "pt"})
    _, target = exported(tiny_copy, tmp_path / "out")

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"), parse_constant=refuse)
    told = {record["tensor"]: record["relative_change"] for record in manifest["changed"]}
    assert told["unet.conv_in.bias"] is None
    assert len([change for change in told.values() if change]) >= 4
    for name, change in told.items():
        part, _, key = name.partition(".")
        old, new = (plain(place / {"unet": UNET, "text_encoder": TEXT}[part]) for place in (tiny_copy, target))
        moved, size = (float(one.double().norm()) for one in (new[key].double() - old[key].double(), old[key]))
        assert change == (pytest.approx(moved / size, rel=1e-9) if size else None)


def test_no_unedited_copy_of_an_edited_weight_is_shipped(tiny_copy: Path, tmp_path: Path) -> None:
    copies = (
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/pytorch_model.bin",
        "model.ckpt",
        "model-pruned.safetensors",
    )
    for name in copies:
        shutil.copyfile(tiny_copy / UNET, tiny_copy / name)
    (tiny_copy / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"the vae is not edited")
    _, target = exported(tiny_copy, tmp_path / "out")
    shipped = contents(target)
    assert sorted(json.loads(shipped["manifest.json"])["left_out"]) == sorted(copies)
    assert set(copies).isdisjoint(shipped)
    assert "vae/diffusion_pytorch_model.bin" in shipped


def test_shards_are_rewritten_where_each_tensor_lies(tiny_copy: Path, tmp_path: Path) -> None:
    whole = load_file(tiny_copy / UNET)
    (tiny_copy / UNET).unlink()
    names = sorted(whole)
    where = {}
    for number, keys in enumerate((names[::2], names[1::2]), start=1):
        shard = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({key: whole[key] for key in keys}, tiny_copy / "unet" / shard, metadata={"format": "pt"})
        where |= dict.fromkeys(keys, shard)
    index = tiny_copy / f"{UNET}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    edit, target = exported(tiny_copy, tmp_path / "out")
    assert (target / f"{UNET}.index.json").read_bytes() == index.read_bytes()
    for name in (name for name in edit.touches if name.startswith("unet.")):
        key = name.removeprefix("unet.")
        new = load_file(target / "unet" / where[key])[key]
        assert torch.equal(new, edit.changed_tensor(name, whole[key]))
        assert not torch.equal(new, whole[key])


def test_what_is_there_already_is_not_overwritten(tiny_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(RunConflict, match="exists already"):
        exported(tiny_copy, tmp_path / "out")
    assert contents(tmp_path / "out") == {"thesis.txt": b"precious"}


def test_nothing_is_left_where_an_export_fails(tiny_copy: Path, tmp_path: Path) -> None:
    model = open_model(tiny_copy)
    with pytest.raises(BadEdit, match="NaN"):
        folder(model, tiny_edit(model, size=float("inf")), tmp_path / "out")
    (tiny_copy / "unet" / "link.json").symlink_to("/etc/hostname")
    with pytest.raises(BadModel, match="leads out of the model"):
        folder(model, tiny_edit(model), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [tiny_copy.name]


def test_an_edit_of_another_model_is_refused(tiny_copy: Path, tmp_path: Path) -> None:
    edit, target = exported(tiny_copy, tmp_path / "out")
    with pytest.raises(ModelMismatch):
        folder(open_model(target), edit, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_keys_of_text_encoders_get_the_prefix_that_all_programs_read_and_lose_it_by_undo(
    source: Path, tmp_path: Path
) -> None:
    shutil.rmtree(source / "judge")
    assert not any(key.startswith("text_model.") for key in load_file(source / TEXT))  # as transformers 5 saves
    model = open_model(source)
    target = folder(model, tiny_edit(model), tmp_path / "out", reversal=True)  # edits the UNet alone
    assert all(key.startswith("text_model.") for key in load_file(target / TEXT))
    assert open_model(target).pipeline().text_encoder.config.hidden_size == 32
    for base in (source, None):
        assert contents(undo(target, tmp_path / f"back-{base is None}", base=base)) == contents(source)


def test_a_tokenizer_from_a_single_file_has_the_older_files_too(model: Model, tmp_path: Path) -> None:
    single = open_model(checkpoint(model, tiny_edit(model, size=0.1), tmp_path / "single"), config=model.path)
    target = folder(single, tiny_edit(single), tmp_path / "out")
    written = json.loads((target / "tokenizer/tokenizer.json").read_text(encoding="utf-8"))["model"]
    vocabulary = json.loads((target / "tokenizer/vocab.json").read_text(encoding="utf-8"))
    lines = (target / "tokenizer/merges.txt").read_text(encoding="utf-8").splitlines()
    assert vocabulary.items() >= written["vocab"].items()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert lines[0].startswith("#version")
    assert [line.split(" ") for line in lines[1:]] == [list(pair) for pair in written["merges"]]


def test_a_reversal_file_that_a_kill_has_kept_from_being_written_is_made_by_the_same_command(
    tiny_copy: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tiny_copy / "judge")
    model = open_model(tiny_copy)
    edit = tiny_edit(model)
    target = folder(model, edit, tmp_path / "out", reversal=True)
    written = (tmp_path / "out.reversal.safetensors").read_bytes()
    (tmp_path / "out.reversal.safetensors").unlink()
    assert folder(model, edit, target, reversal=True) == target
    assert (tmp_path / "out.reversal.safetensors").read_bytes() == written
    with pytest.raises(RunConflict, match="exists already"):
        folder(model, edit, target, reversal=True)
