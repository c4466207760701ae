"""An edit is applied, undone, scaled, added, saved and refused as its contract says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.edit import Edit, EditInfo, TextMap, fingerprint_of
from erase.errors import BadEdit, BadOption, ModelMismatch, PickleRefused
from erase.models import Model, open_model
from tests.tiny import tiny_stable_diffusion


def some_edit(model: Model, *, seed: int = 0, rank: int = 2) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    width = model.sites()[0].columns
    up, down = (torch.randn(shape, generator=generator) for shape in ((width, rank), (rank, width)))
    info = EditInfo("uce", {"lamb": 0.5}, {}, model.family, model.fingerprint)
    bias = torch.randn(model.weight("unet.conv_out.bias").shape, generator=generator)
    return Edit(info, (TextMap(up, down, tuple(site.name for site in model.sites())),), {"unet.conv_out.bias": bias})


def test_a_text_map_multiplies_every_site_by_one_matrix(model: Model) -> None:
    edit = some_edit(model)
    matrix = edit.text_maps[0].matrix()
    for site in model.sites():
        weight = model.weight(site.name)
        expected = (weight.double() @ matrix).float()
        torch.testing.assert_close(edit.changed_tensor(site.name, weight), expected, rtol=1e-6, atol=1e-6)
        assert not torch.allclose(expected, weight)


def test_a_baked_text_map_is_the_map_on_the_prompt(model: Model) -> None:
    edit, state = some_edit(model), model.encode(["a cat"]).states[0].double()
    weight = model.weight(model.sites()[0].name).double()
    baked = state @ (weight @ edit.text_maps[0].matrix()).T
    mapped = (state @ edit.text_maps[0].matrix().T) @ weight.T
    torch.testing.assert_close(baked, mapped)


def test_a_with_block_restores_even_after_an_error(model: Model) -> None:
    pipe = model.pipeline()
    before = fingerprint_of(pipe)
    with pytest.raises(RuntimeError, match="inside"), some_edit(model).apply(pipe):
        assert fingerprint_of(pipe) != before
        raise RuntimeError("inside")
    assert fingerprint_of(pipe) == before


def test_a_second_undo_does_nothing(model: Model) -> None:
    pipe = model.pipeline()
    applied = some_edit(model).apply(pipe)
    applied.undo()
    pipe.unet.conv_out.bias.data.fill_(7.0)
    applied.undo()
    assert bool((pipe.unet.conv_out.bias == 7.0).all())


def test_half_strength_moves_half_way(model: Model) -> None:
    edit, name = some_edit(model), model.sites()[0].name
    weight = model.weight(name)
    whole = edit.changed_tensor(name, weight) - weight
    half = edit.scaled(0.5).changed_tensor(name, weight) - weight
    torch.testing.assert_close(half * 2, whole, rtol=1e-5, atol=1e-6)
    assert edit.scaled(0.5).scaled(0.5).info.strength == 0.25


def test_a_sum_adds_what_both_add(model: Model) -> None:
    one, two = some_edit(model, seed=1), some_edit(model, seed=2)
    for name in (model.sites()[0].name, "unet.conv_out.bias"):
        weight = model.weight(name)
        moved = [edit.changed_tensor(name, weight) - weight for edit in (one, two, one + two)]
        torch.testing.assert_close(moved[0] + moved[1], moved[2], rtol=1e-5, atol=1e-5)
    assert (one + two).rank == 4


def test_adding_the_opposite_gives_back_the_model(model: Model) -> None:
    edit, name = some_edit(model), model.sites()[0].name
    nothing = edit + edit.scaled(-1.0)
    assert torch.equal(nothing.changed_tensor(name, model.weight(name)), model.weight(name))


def test_content_tells_edits_apart_and_ignores_who_made_them(model: Model) -> None:
    edit = some_edit(model)
    assert some_edit(model, seed=1).content != edit.content
    assert edit.scaled(0.5).content != edit.content
    assert replace(edit, info=replace(edit.info, versions={"torch": "0"})).content == edit.content


def test_an_edit_for_another_base_is_refused_and_can_be_forced(model: Model, tmp_path: Path) -> None:
    other = open_model(tiny_stable_diffusion(tmp_path / "other", seed=1))
    edit, pipe = some_edit(model), other.pipeline()
    before = fingerprint_of(pipe)
    with pytest.raises(ModelMismatch, match="another model"):
        edit.apply(pipe)
    assert fingerprint_of(pipe) == before
    edit.apply(pipe, force=True)
    assert fingerprint_of(pipe) != before
    with pytest.raises(ModelMismatch):
        list(edit.changed(other))
    with pytest.raises(ModelMismatch, match="added"):
        _ = edit + some_edit(other)


def test_an_edit_is_not_applied_twice_by_accident(model: Model) -> None:
    pipe = model.pipeline()
    some_edit(model).apply(pipe)
    with pytest.raises(ModelMismatch):
        some_edit(model).apply(pipe)


def test_the_fingerprint_is_the_same_for_the_folder_and_the_loaded_pipeline(model: Model) -> None:
    assert fingerprint_of(model.pipeline()) == model.fingerprint


def test_the_fingerprint_does_not_depend_on_a_text_encoder_key_prefix(model: Model, tiny_copy: Path) -> None:
    file = tiny_copy / "text_encoder" / "model.safetensors"
    flat = {key.removeprefix("text_model."): value for key, value in load_file(file).items()}
    save_file({f"text_model.{key}": value for key, value in flat.items()}, file, metadata={"format": "pt"})
    assert open_model(tiny_copy).fingerprint == model.fingerprint


def test_an_edit_that_gives_nan_is_refused_before_anything_changes(model: Model) -> None:
    pipe, edit = model.pipeline(), some_edit(model)
    before = fingerprint_of(pipe)
    broken = replace(edit, deltas={"unet.conv_out.bias": edit.deltas["unet.conv_out.bias"] * float("nan")})
    with pytest.raises(BadEdit, match="NaN"):
        broken.apply(pipe)
    assert fingerprint_of(pipe) == before


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), -float("inf"), 1e308, -1e39])
def test_a_strength_that_is_not_finite_as_float32_is_refused(model: Model, strength: float) -> None:
    with pytest.raises(BadOption, match="expected a finite number"):
        some_edit(model).scaled(strength)


def test_a_strength_at_which_the_edit_overflows_is_refused(model: Model) -> None:
    with pytest.raises(BadOption, match=r"at strength 3e\+38 the edit is NaN or infinite"):
        some_edit(model).scaled(3e38)


def test_a_change_of_another_shape_than_the_weight_is_refused(model: Model) -> None:
    edit, name = some_edit(model), "unet.conv_out.bias"
    one = replace(edit, deltas={name: torch.ones(1)})  # which would be added to every value
    for refuse in (lambda: one.apply(model.pipeline()), lambda: list(one.changed(model))):
        with pytest.raises(BadEdit, match="does not fit its shape"):
            refuse()
    with pytest.raises(ModelMismatch, match="which this model does not have"):
        list(replace(edit, deltas={"unet.nothing.bias": torch.ones(1)}).changed(model))


def test_a_truncated_edit_is_told(model: Model, tmp_path: Path) -> None:
    some_edit(model).save(tmp_path / "edit.safetensors")
    data = (tmp_path / "edit.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadEdit, match="truncated"):
        Edit.load(tmp_path / "cut.safetensors")


def test_a_safetensors_that_is_no_edit_is_told(tiny_model: Path) -> None:
    with pytest.raises(BadEdit, match="no edit"):
        Edit.load(tiny_model / "unet" / "diffusion_pytorch_model.safetensors")


def test_a_missing_edit_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadEdit, match="does not exist"):
        Edit.load(tmp_path / "edit.safetensors")


def test_a_pickled_edit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "edit.pt").write_bytes(b"")
    with pytest.raises(PickleRefused):
        Edit.load(tmp_path / "edit.pt")


def test_half_precision_weights_stay_half_precision(model: Model, tmp_path: Path, tiny_model: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "half"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value.half() for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    half = open_model(folder)
    assert {value.dtype for _, value in some_edit(half).changed(half)} == {torch.float16}
