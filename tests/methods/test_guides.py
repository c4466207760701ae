"""What every method promises that acts while sampling: one suite over all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from erase import registry
from erase.config.prompts import Row
from erase.edit import Edit
from erase.errors import BadEdit, ModelMismatch
from erase.export.folder import folder
from erase.export.patch import patch
from erase.methods.adavd import AdaVD
from erase.methods.negative_prompt import NegativePrompt
from erase.models import Model, open_model
from erase.sampling.generate import generate, sample
from erase.sampling.guides import guide_of
from erase.sampling.sampler import Sampler
from tests.families import Opener
from tests.methods.test_contract import GUIDES, TASK, make
from tests.tiny import tiny_stable_diffusion
from tests.tiny_families import FAMILIES

SAMPLER = Sampler(steps=12, batch=2, guidance=4.0, size=16)
TRUE = replace(SAMPLER, true_guidance=4.0)
ROWS = (Row("a cat in noto style", 0), Row("a dog", 1), Row("a noto car", 2))


# What stands behind cross-attention is nothing for a model without it.
REFUSED = {("receler", family) for family in ("stable-diffusion-3", "flux")}


@pytest.fixture(params=FAMILIES)
def guided(request: pytest.FixtureRequest, family_model: Opener) -> Model:
    """The tiny model of each family that guides act on."""
    if (request.node.callspec.params.get("method"), request.param) in REFUSED:
        pytest.skip("the method refuses this family")
    return family_model(request.param)


def pictures(model: Model, rows: tuple[Row, ...], edit: Edit | None) -> list[NDArray[Any]]:
    sampler = sampler_of(model)
    return [np.asarray(image).astype(int) for _, image in sample(model, rows, sampler, edit=edit)]


def sampler_of(model: Model) -> Sampler:
    return TRUE if model.true_cfg else SAMPLER


@pytest.mark.parametrize("method", GUIDES)
def test_it_changes_images_at_full_strength_and_none_at_strength_zero(method: str, guided: Model) -> None:
    # The default centre is for the likeness in trained models; random ones of two encoders are less alike.
    edit = AdaVD(centre=0.5)(guided, TASK) if method == "adavd" else make(method, guided)
    plain, changed, nothing = (pictures(guided, ROWS, one) for one in (None, edit, edit.scaled(0.0)))
    assert any((one != other).any() for one, other in zip(plain, changed, strict=True))
    assert all((one == other).all() for one, other in zip(plain, nothing, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_named_concept_as_negative_prompt_is_the_pipelines_own(family: str, family_model: Opener) -> None:
    model = family_model(family)
    edit = NegativePrompt(text="noto, blob")(model, TASK)
    guided = pictures(model, ROWS, edit)
    plain = [
        np.asarray(image).astype(int)
        for _, image in sample(model, ROWS, replace(sampler_of(model), negative="noto, blob"))
    ]
    assert max(int(abs(one - other).max()) for one, other in zip(guided, plain, strict=True)) <= 1


@pytest.mark.parametrize("method", GUIDES)
def test_an_image_does_not_depend_on_its_neighbours(method: str, guided: Model) -> None:
    edit = make(method, guided)
    together, alone = pictures(guided, ROWS, edit), pictures(guided, ROWS[2:], edit)
    assert (together[2] == alone[0]).all()


@pytest.mark.parametrize("method", GUIDES)
def test_a_loaded_edit_draws_the_same(method: str, guided: Model, tmp_path: Path) -> None:
    edit = make(method, guided)
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    (made,) = generate(guided, ROWS[:1], tmp_path / "one", edit=edit, sampler=sampler_of(guided))
    (remade,) = generate(guided, ROWS[:1], tmp_path / "two", edit=again, sampler=sampler_of(guided))
    assert made.name == remade.name
    assert made.read_bytes() == remade.read_bytes()


@pytest.mark.parametrize("method", GUIDES)
def test_it_is_saved_as_a_patch_and_refused_as_weights(method: str, guided: Model, tmp_path: Path) -> None:
    edit = make(method, guided)
    assert Edit.load(patch(guided, edit, tmp_path / "edit")).content == edit.content
    with pytest.raises(BadEdit, match=f"{method} acts while sampling"):
        folder(guided, edit, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(BadEdit, match=f"{method} acts while sampling"):
        edit.apply(guided.pipeline())


@pytest.mark.parametrize("method", GUIDES)
def test_another_models_edit_is_refused(method: str, guided: Model, tmp_path: Path) -> None:
    other = open_model(tiny_stable_diffusion(tmp_path / "other", seed=1))
    with pytest.raises(ModelMismatch):
        guide_of(make(method, other), guided)


def test_every_guide_is_a_method() -> None:
    assert set(GUIDES) <= set(registry.known("methods"))
    assert len(GUIDES) >= 4
