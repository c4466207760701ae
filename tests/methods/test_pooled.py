"""The pooled state's path into SDXL, SD 3 and FLUX: closed forms edit it by a map of its own, biases left out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from erase import registry
from erase.edit import Edit, TextMap
from erase.errors import BadWeights
from erase.export.folder import folder
from erase.export.lora import lora
from erase.export.parts.undo import undo
from erase.methods.closed_form.prior import build_prior, load_prior
from erase.methods.speed import SPEED
from erase.methods.time import TIME
from erase.methods.uce import UCE
from erase.models import Model, Site, open_model
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.formulas import relative, ridge_step

POOLED = ("stable-diffusion-xl", "stable-diffusion-3", "flux")
METHODS = ("mace", "rece", "redirect", "speed", "time", "uce")
PROMPTS = ("a cat in {} style", "{} style")
TASK = Task((Target("noto", "style", "blob", prompts=PROMPTS),), keeps=("a dog in twemoji style", "a car"))


@pytest.fixture(params=POOLED)
def model(request: pytest.FixtureRequest, family_model: Opener) -> Model:
    return family_model(request.param)


def site_of(model: Model) -> Site:
    (found,) = (site for site in model.sites() if site.reads == "pooled")
    return found


def pooled(model: Model, *prompts: str) -> torch.Tensor:
    states = model.encode(prompts).pooled
    assert states is not None
    return states.double()


def map_of(edit: Edit, site: Site) -> TextMap:
    (found,) = (text_map for text_map in edit.text_maps if site.name in text_map.sites)
    assert found.sites == (site.name,)
    return found


def test_the_weight_that_reads_it_becomes_the_papers_and_its_bias_does_not_enter(model: Model) -> None:
    method = UCE(protect="none", erase_scale=1.5, preserve_scale=0.7, lamb=0.3, phrasings="own")
    edit, site = method(model, TASK), site_of(model)
    assert site.biased
    old = pooled(model, *(text.format("noto") for text in PROMPTS))
    new = pooled(model, *(text.format("blob") for text in PROMPTS))
    weight = model.weight(site.name).double()
    read = weight[:, : site.width]
    expected = ridge_step(read, old, new, keeps=pooled(model, *TASK.kept), scales=(1.5, 0.7, 0.3))
    assert relative(read, expected) > 1e-3
    assert relative(read @ map_of(edit, site).matrix(), expected) < 1e-6
    changed = edit.changed_tensor(site.name, model.weight(site.name))
    assert torch.equal(changed[:, site.width :], model.weight(site.name)[:, site.width :])
    assert not any(name.endswith("bias") for name in edit.touches)


@pytest.mark.parametrize("protect", ["exact", "none"])
def test_the_tensor_technique_reaches_it_too(model: Model, protect: str) -> None:
    edit, site = UCE(technique="tensor", protect=protect)(model, TASK), site_of(model)  # type: ignore[arg-type]
    delta = edit.deltas[site.name].double()
    assert delta.shape == (site.rows, site.columns)
    assert delta[:, : site.width].norm() > 0
    assert not delta[:, site.width :].any()
    moved = (delta[:, : site.width] @ pooled(model, "").T).norm()
    assert (moved < 1e-6 * delta.norm()) == (protect == "exact")


@pytest.mark.parametrize("method", METHODS)
def test_every_closed_form_brings_a_targets_pooled_state_nearer_to_its_anchors(method: str, model: Model) -> None:
    build: Any = registry.load("methods", method)
    options: dict[str, Any] = {"mace": {"lamb": 1e-4}, "time": {"lamb": 1e-4}}
    matrix = map_of(build(**options.get(method, {}))(model, TASK), site_of(model)).matrix()
    old, new = pooled(model, "a cat in noto style", "a cat in blob style")
    assert (old @ matrix.T - new).norm() < 0.95 * (old - new).norm()


def test_the_layers_own_choice_of_keeps_reaches_it(model: Model) -> None:
    delta = SPEED(keeps="layer")(model, TASK).deltas[site_of(model).name]
    assert delta.any()


def test_it_stays_where_keys_or_values_alone_are_asked_for(family_model: Opener) -> None:
    model = family_model("stable-diffusion-xl")
    assert site_of(model).name not in TIME(weights="values")(model, TASK).touches
    assert site_of(model).name in TIME()(model, TASK).touches


def test_priors_count_pooled_states_too_and_one_without_them_is_refused(model: Model, tmp_path: Path) -> None:
    file, captions = tmp_path / "prior.safetensors", ("a cat", "a dog in a car")
    prior = build_prior(model, captions)
    prior.save(file)
    states = pooled(model, *captions)
    torch.testing.assert_close(load_prior(file, model).means["pooled"], states.T @ states / 2)
    type(prior)(prior.gram, prior.source).save(file)
    with pytest.raises(BadWeights, match="lacks the pooled states"):
        load_prior(file, model)


def test_a_folder_holds_it_and_undoing_restores_it_to_the_bit(model: Model, tmp_path: Path) -> None:
    edit, site = UCE()(model, TASK), site_of(model)
    edited = folder(model, edit, tmp_path / "edited", card=False)
    again = open_model(edited).weight(site.name)
    assert torch.equal(again, edit.changed_tensor(site.name, model.weight(site.name)))
    assert not torch.equal(again, model.weight(site.name))
    restored = open_model(undo(edited, tmp_path / "restored", base=model.path))
    assert torch.equal(restored.weight(site.name), model.weight(site.name))


def test_a_pipeline_takes_it_and_gives_it_back(model: Model, pipe_of: Callable[[str], Any]) -> None:
    pipe, edit, site = pipe_of(model.family), UCE()(model, TASK), site_of(model)
    weight = getattr(pipe, site.component).get_parameter(site.key)
    before = weight.detach().clone()
    with edit.apply(pipe):
        assert not torch.equal(weight, before)
    assert torch.equal(weight, before)


def test_a_lora_holds_it(model: Model, tmp_path: Path) -> None:
    edit, site = UCE()(model, TASK), site_of(model)
    module = (
        "lora_unet_label_emb_0_0.lora_{}.weight" if site.component == "unet" else f"{site.name[:-7]}.lora_{{}}.weight"
    )
    names_in_file = {"up": "up", "down": "down"} if site.component == "unet" else {"up": "B", "down": "A"}
    with safe_open(lora(model, edit, tmp_path / "lora.safetensors"), framework="pt") as file:
        up, down = (file.get_tensor(module.format(names_in_file[way])).double() for way in ("up", "down"))
    change = edit.changed_tensor(site.name, model.weight(site.name)) - model.weight(site.name)
    assert change.norm() > 0
    assert relative(up @ down, change.double()) < 1e-4
