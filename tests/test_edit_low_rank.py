"""Low-rank changes and guidance in an edit: added, scaled, saved and refused like all others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.edit import Edit, EditInfo, LowRank
from erase.errors import BadEdit
from erase.models import Model

CONVOLUTION = "unet.conv_in.weight"


def info(model: Model, **changes: object) -> EditInfo:
    return EditInfo("lora", {"rank": 2}, {}, model.family, model.fingerprint, **changes)  # type: ignore[arg-type]


def some_edit(model: Model, *, seed: int = 0) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    site = model.sites()[0]
    shapes = {site.name: (site.rows, site.columns), CONVOLUTION: (16, 4 * 3 * 3)}
    low_rank = tuple(
        LowRank(torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator), name)
        for name, (rows, columns) in shapes.items()
    )
    return Edit(info(model), low_rank=low_rank)


def test_it_adds_the_product_in_the_weights_shape(model: Model) -> None:
    edit = some_edit(model)
    for one in edit.low_rank:
        weight = model.weight(one.site)
        product = torch.einsum("or,rc->oc", one.up.double(), one.down.double()).reshape(weight.shape)
        expected = (weight.double() + product).float()
        assert torch.equal(edit.changed_tensor(one.site, weight), expected)
        assert not torch.equal(expected, weight)
    assert edit.touches == tuple(sorted(one.site for one in edit.low_rank))


def test_it_is_scaled_and_added(model: Model) -> None:
    one, two = some_edit(model, seed=1), some_edit(model, seed=2)
    weight = model.weight(CONVOLUTION)
    moved = [edit.changed_tensor(CONVOLUTION, weight) - weight for edit in (one, two, one.scaled(0.5), one + two)]
    torch.testing.assert_close(moved[2] * 2, moved[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved[0] + moved[1], moved[3], rtol=1e-4, atol=1e-5)
    assert len({edit.content for edit in (one, two, one.scaled(0.5), one + two)}) == 4


def test_it_is_saved_and_loaded_with_every_bit(model: Model, tmp_path: Path) -> None:
    edit = some_edit(model) + some_edit(model, seed=1)
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert again.content == edit.content
    assert [one.site for one in again.low_rank] == [one.site for one in edit.low_rank]
    assert torch.equal(again.low_rank[3].up, edit.low_rank[3].up)


def test_more_than_ten_stay_in_their_order(model: Model, tmp_path: Path) -> None:
    edit = some_edit(model)
    for seed in range(1, 7):
        edit = edit + some_edit(model, seed=seed)
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert len(again.low_rank) == 14
    assert all(torch.equal(one.up, two.up) for one, two in zip(again.low_rank, edit.low_rank, strict=True))
    assert again.content == edit.content


def test_applying_and_undoing_restores_every_bit(model: Model) -> None:
    pipe = model.pipeline()
    before = pipe.unet.conv_in.weight.detach().clone()
    with some_edit(model).apply(pipe):
        assert not torch.equal(pipe.unet.conv_in.weight, before)
    assert torch.equal(pipe.unet.conv_in.weight, before)


def test_a_guidance_is_told_apart_by_what_it_says_and_keeps_it(model: Model, tmp_path: Path) -> None:
    edit = Edit(info(model), guidance=True)
    other = Edit(EditInfo("sld", {}, {}, model.family, model.fingerprint), guidance=True)
    assert len({one.content for one in (edit, other, edit.scaled(0.5), Edit(info(model)))}) == 4
    edit.scaled(0.5).save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert again.guidance
    assert again.info.strength == 0.5
    assert again.content == edit.scaled(0.5).content


def test_a_guidance_is_no_weights(model: Model) -> None:
    edit = Edit(info(model), guidance=True)
    for act in (lambda: edit.apply(model.pipeline()), lambda: list(edit.changed(model)), lambda: edit + edit):
        with pytest.raises(BadEdit, match="lora acts while sampling and changes no weight"):
            act()
