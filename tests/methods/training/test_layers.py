"""Every choice of layers names what it says, and never nothing."""

from __future__ import annotations

from typing import get_args

import pytest
from torch import nn

from erase.errors import BadModel, BadOption
from erase.methods.esd import ESD
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.layers import Layers, chosen_modules, chosen_parameters
from erase.models import Model
from tests.families import Opener
from tests.tiny_families import FAMILIES


def names(model: Model, layers: Layers) -> set[str]:
    return set(chosen_parameters(Denoiser.of(model).network, layers))


def test_strict_cross_attention_is_the_models_sites(model: Model) -> None:
    assert {f"unet.{name}" for name in names(model, "x-strict")} == {site.name for site in model.sites()}


def test_cross_attention_adds_queries_and_outputs_with_their_biases(model: Model) -> None:
    more = names(model, "x") - names(model, "x-strict")
    assert {name.rpartition("attn2.")[2] for name in more} == {"to_q.weight", "to_out.0.weight", "to_out.0.bias"}


def test_cross_attention_and_the_rest_are_all_and_share_nothing(model: Model) -> None:
    assert names(model, "x") | names(model, "u") == names(model, "all")
    assert names(model, "x") & names(model, "u") == set()
    assert {"conv_in.weight", "time_embedding.linear_1.weight"} <= names(model, "u")
    assert not any("norm" in name for name in names(model, "all"))


def test_self_attention_is_attn1_alone(model: Model) -> None:
    chosen = names(model, "selfattn")
    assert chosen
    assert all(".attn1." in name for name in chosen)


def test_only_what_was_chosen_is_trained(model: Model) -> None:
    network = Denoiser.of(model).network
    chosen = chosen_parameters(network, "x-strict")
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == set(chosen)


def test_layers_of_blocks_lie_below_them(model: Model) -> None:
    network = Denoiser.of(model).network
    inside = chosen_modules(network, "all", blocks=True)
    assert any(name.endswith("proj_in") for name in inside)
    assert all(".attentions." in name for name in inside)
    assert len(inside) < len(chosen_modules(network, "all"))


@pytest.mark.parametrize("layers", [one for one in get_args(Layers) if one not in ("u", "all")])
def test_a_choice_that_names_no_layer_is_an_error(layers: Layers) -> None:
    with pytest.raises(BadModel, match="names no layer"):
        chosen_parameters(nn.Sequential(nn.Linear(2, 2)), layers)


def test_an_unknown_choice_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadOption, match=r'layers is "xattn"; expected one of x, x-strict, text, qk, u, selfattn, all'):
        ESD(layers="xattn")  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("blocks", [False, True])
def test_text_is_every_weight_that_reads_the_prompt_pooled_states_included(
    family: str, family_model: Opener, blocks: bool
) -> None:
    model = family_model(family)
    chosen = chosen_modules(Denoiser.of(model).network, "text", blocks=blocks)
    reading = {site.name for site in model.sites() if site.reads != "stream"}
    assert {f"{model.backbone}.{name}.weight" for name in chosen} >= reading
    assert not any("timestep" in name or ".to_q" in name or ".ff" in name for name in chosen)
