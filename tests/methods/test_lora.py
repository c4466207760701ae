"""LECO against its loss, its layers and ranks, and what its options promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.errors import BadModel, BadOption
from erase.methods.lora import LoRA, leco_aim, resized
from erase.methods.training.layers import chosen_modules
from erase.methods.training.session import target_pairs
from erase.models import Model
from erase.task import Target, Task
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions, seen, square


@pytest.mark.parametrize("away", [1.0, -1.0, 2.5])
def test_the_loss_is_the_distance_to_neutral_less_the_guided_difference(away: float) -> None:
    predicted, neutral, positive, empty = seen(4)
    expected = square(
        predicted, torch.stack([n - away * (p - e) for n, p, e in zip(neutral, positive, empty, strict=True)])
    )
    aim = leco_aim(neutral, positive, empty=empty, away=away)
    assert torch.nn.functional.mse_loss(predicted, aim).item() == pytest.approx(expected, rel=1e-12)


def test_a_renormalised_aim_has_the_size_of_where_it_goes_from_and_the_same_direction() -> None:
    _, neutral, positive, empty = seen(4)
    aim = leco_aim(neutral, positive, empty=empty, away=1.0)
    for found, one, like in zip(resized(aim, neutral), aim, neutral, strict=True):
        size = sum(value**2 for value in like.flatten().tolist()) ** 0.5
        assert float(found.norm()) == pytest.approx(size, rel=1e-12)
        torch.testing.assert_close(found / found.norm(), one / one.norm())


@pytest.mark.parametrize("renormalised", [False, True])
def test_one_slider_removes_at_strength_one_and_strengthens_at_minus_one(model: Model, renormalised: bool) -> None:
    edit = LoRA(**MANY, action="both", alpha=4.0, layers="x", renormalised=renormalised)(model, STYLE)
    empty, prompted = predictions(model, ""), predictions(model, OLD)
    concept = prompted - empty
    along = {}
    for strength in (-1.0, 0.0, 1.0):
        moved = predictions(model, OLD, edit.scaled(strength)) - prompted
        along[strength] = float((moved * concept).sum() / concept.square().sum())
    assert along[1.0] < -0.3
    assert along[0.0] == 0
    assert along[-1.0] > 0.3


@pytest.mark.slow
def test_erasing_and_enhancing_go_opposite_ways(model: Model) -> None:
    empty, prompted = predictions(model, ""), predictions(model, OLD)
    along = {}
    for action in ("erase", "enhance"):
        edit = LoRA(**MANY, action=action, alpha=4.0, layers="x")(model, STYLE)  # type: ignore[arg-type]
        moved = predictions(model, OLD, edit) - prompted
        along[action] = float((moved * (prompted - empty)).sum() / (prompted - empty).square().sum())
    assert along["erase"] < -0.5  # its target lies two differences behind, that of enhancing none ahead
    assert along["enhance"] > along["erase"] + 0.5


def test_neutral_and_positive_are_what_the_network_predicts_for_them(model: Model) -> None:
    contents = {
        LoRA(**FEW, neutral=neutral, positive=positive)(model, STYLE).content
        for neutral in ("", "a cat")
        for positive in ("", "a dog")
    }
    assert len(contents) == 4
    frozen = seen(4)
    both = LoRA(neutral="a", positive="b")._chosen(frozen)
    assert torch.equal(torch.stack(both), frozen[2:4])
    neither = LoRA()._chosen(frozen[:2])
    assert torch.equal(torch.stack(neither), frozen[:2])
    assert torch.equal(torch.stack(LoRA(positive="b")._chosen(frozen[:3])), frozen[[0, 2]])


def test_each_prompt_of_a_target_goes_from_its_own_anchors_prompt() -> None:
    monet = Target("Claude Monet", "style", anchor="oil painting", synonyms=("Monet",), prompts=("a pond, {}", "{}"))
    nameless = Target("Kilian Eng", "style", prompts=("a city by {}",))
    assert LoRA()._asked(target_pairs(Task((monet, nameless)))) == [
        ("a pond, Claude Monet", ("a pond, oil painting",)),
        ("a city by Kilian Eng", ("",)),
        ("a pond, Monet", ("a pond, oil painting",)),
        ("Claude Monet", ("oil painting",)),
        ("Monet", ("oil painting",)),
    ]
    texts = [text for text, _ in LoRA()._asked(target_pairs(Task((monet,))))]
    assert LoRA(neutral="art", positive="fog")._asked(target_pairs(Task((monet,)))) == [
        (text, ("art", "fog")) for text in texts
    ]
    for plain in (LoRA(anchored=False), LoRA(action="enhance")):
        assert plain._asked(target_pairs(Task((monet,)))) == [(text, ()) for text in texts]
    assert LoRA()._asked(target_pairs(Task((nameless,)))) == [("a city by Kilian Eng", ())]


def test_the_adapter_learns_the_anchors_prediction_less_the_difference(model: Model) -> None:
    edit = LoRA(**MANY, alpha=4.0, layers="x")(model, STYLE)
    empty, prompted, anchor = (predictions(model, text) for text in ("", OLD, NEW))
    after, target = predictions(model, OLD, edit), anchor - (prompted - empty)
    assert (after - target).norm() < 0.7 * (prompted - target).norm()
    # nearer to it than what is learnt without an anchor is
    plain = predictions(model, OLD, LoRA(**MANY, alpha=4.0, layers="x", anchored=False)(model, STYLE))
    assert (after - target).norm() < 0.9 * (plain - target).norm()


@pytest.mark.parametrize("layers", ["x", "x-strict", "u", "selfattn", "all"])
def test_it_adapts_the_layers_of_its_choice_and_no_others(model: Model, layers: Any) -> None:
    network = model.pipeline().unet
    chosen = {f"unet.{name}.weight" for name in chosen_modules(network, layers, blocks=True)}
    assert chosen
    edit = LoRA(**FEW, layers=layers)(model, STYLE)
    assert set(edit.touches) == chosen
    assert {one.site for one in edit.low_rank if one.up.any()} == chosen


def test_the_choices_differ(model: Model) -> None:
    network = model.pipeline().unet
    sizes = [len(chosen_modules(network, layers, blocks=True)) for layers in ("x-strict", "x", "all")]  # type: ignore[arg-type]
    assert sizes[0] < sizes[1] < sizes[2]


def test_no_layer_is_an_error(model: Model) -> None:
    with pytest.raises(BadModel, match="names no layer"):
        chosen_modules(model.pipeline().unet.conv_in, "x", blocks=True)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_weight_changes_by_the_rank_at_most(model: Model, rank: int) -> None:
    edit = LoRA(**FEW, rank=rank)(model, STYLE)
    for one in edit.low_rank:
        delta = one.delta(model.weight(one.site)).flatten(1)
        assert torch.linalg.matrix_rank(delta, atol=1e-9) == rank


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"action": "remove"}, "action"),
        ({"rank": 0}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"layers": "c3lier"}, "layers"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        LoRA(**options)
