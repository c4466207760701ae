"""The view of Stable Diffusion: its sites, its prompt encoding, its errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.errors import BadModel, BadWeights, PickleRefused, PromptTooLong, UnknownName
from erase.models import Model, open_model


def test_sites_are_the_keys_and_values_of_every_cross_attention(model: Model) -> None:
    pipe = model.pipeline()
    expected = {
        f"unet.{name}.weight" for name, _ in pipe.unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))
    }
    assert expected
    assert {site.name for site in model.sites()} == expected
    assert {site.reads for site in model.sites()} == {"tokens"}
    for site in model.sites():
        assert model.weight(site.name).shape == (site.rows, site.columns)


def test_prompts_are_encoded_as_the_pipeline_encodes_them(model: Model) -> None:
    prompts = ["a cat in noto style", "", "zygote"]
    expected = model.pipeline().encode_prompt(prompts, "cpu", 1, False)[0]
    torch.testing.assert_close(model.encode(prompts).states, expected, rtol=0, atol=1e-5)


def test_lengths_point_at_the_last_word_token(model: Model) -> None:
    encoding = model.encode(["a cat", ""])
    alone = model.encode(["cat"])
    assert encoding.ids[0, encoding.lengths[0] - 2] == alone.ids[0, 1]
    assert encoding.lengths.tolist() == [4, 2]


def test_many_prompts_are_encoded_like_one(model: Model) -> None:
    prompts = [f"a cat {number}" for number in range(70)]
    torch.testing.assert_close(model.encode(prompts).states[69], model.encode(prompts[69:]).states[0])


def test_a_prompt_longer_than_the_encoder_takes_is_refused_with_its_length(model: Model) -> None:
    with pytest.raises(PromptTooLong, match="has 20 tokens; tiny takes at most 14"):
        model.encode(["cat " * 20])
    model.check_prompts(["cat " * 14])


def test_half_precision_weights_of_the_same_model_have_another_fingerprint(model: Model, tiny_copy: Path) -> None:
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value.half() for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    assert open_model(tiny_copy).fingerprint != model.fingerprint


def test_prompts_are_encoded_while_the_base_is_hashed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = Event()

    def slow(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
        return f"{encoded.wait(60)} {len(list(weights))}"

    monkeypatch.setattr("erase.models.model.weights_digest", slow)
    fresh = open_model(model.path)
    assert len(fresh.encode(["a cat"]).states) == 1
    encoded.set()
    assert fresh.fingerprint.startswith("True ")


def test_a_fingerprint_does_not_depend_on_where_the_model_lies(model: Model, tiny_copy: Path) -> None:
    assert open_model(tiny_copy).fingerprint == model.fingerprint


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match='"emojy" does not exist'):
        open_model("emojy")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "tokenizer", "vae", "scheduler"])
def test_a_model_without_a_part_names_it(tiny_copy: Path, part: str) -> None:
    shutil.rmtree(tiny_copy / part)
    with pytest.raises(BadModel, match=f"has no {part} folder"):
        open_model(tiny_copy)


def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"model_index\.json"):
        open_model(tmp_path)


def test_another_family_is_refused_by_name(tiny_copy: Path) -> None:
    index = tiny_copy / "model_index.json"
    text = index.read_text(encoding="utf-8").replace("StableDiffusionPipeline", "KandinskyPipeline")
    index.write_text(text, encoding="utf-8")
    with pytest.raises(BadModel, match="KandinskyPipeline"):
        open_model(tiny_copy)


def test_a_broken_index_is_told(tiny_copy: Path) -> None:
    (tiny_copy / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadModel, match="not JSON"):
        open_model(tiny_copy)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_a_truncated_file_is_told(tiny_copy: Path, part: str) -> None:
    file = next((tiny_copy / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadWeights, match="truncated"):
        open_model(tiny_copy).pipeline()


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_nan_weights_are_told(tiny_copy: Path, part: str) -> None:
    file = next((tiny_copy / part).glob("*.safetensors"))
    tensors = load_file(file)
    name = next(key for key, value in tensors.items() if value.is_floating_point() and value.ndim > 1)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadWeights, match="NaN"):
        open_model(tiny_copy).pipeline()


def test_nan_in_a_site_is_found_without_loading_the_pipeline(tiny_copy: Path, model: Model) -> None:
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors[model.sites()[0].key][0, 0] = float("inf")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadWeights, match="NaN or infinite"):
        _ = open_model(tiny_copy).fingerprint


def test_a_pickle_in_place_of_safetensors_is_refused_with_the_way_out(tiny_copy: Path) -> None:
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(PickleRefused, match="safe_serialization=True"):
        open_model(tiny_copy).sites()


def test_a_single_pickled_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(PickleRefused):
        open_model(tmp_path / "model.ckpt")


def test_a_shard_outside_the_folder_is_refused(tiny_copy: Path) -> None:
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    index = {"weight_map": dict.fromkeys(load_file(file), "../unet.safetensors")}
    file.rename(tiny_copy / "unet.safetensors")
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    file.write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(BadWeights, match="not a plain file name"):
        open_model(tiny_copy).sites()


def test_a_sharded_model_is_read_like_a_whole_one(tiny_copy: Path, model: Model) -> None:
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    halves = [dict(sorted(tensors.items())[start::2]) for start in (0, 1)]
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, file.with_name(name), metadata={"format": "pt"})
    file.unlink()
    where = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    file.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where}),
        encoding="utf-8",
    )
    assert open_model(tiny_copy).fingerprint == model.fingerprint
