"""Receler against its paper's equations, its attack and its mask, and the edit that no export can hold."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadEdit, BadModel, BadOption
from erase.methods.receler import Prompt, Receler, erased_by, locality_loss, mask_of, sides
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.session import Session
from erase.models import Condition, Model
from erase.run.steps import export
from erase.sampling.guides import guide_of
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE

SMALL: dict[str, Any] = {"rank": 4, "attack_steps": 2, "soft": 2}


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.fixture(scope="module")
def edit(model: Model) -> Edit:
    return Receler(**FEW, **SMALL)(model, STYLE)


def test_an_eraser_is_two_matrices_with_a_gelu_between_number_by_number() -> None:
    output, down, up = double(1, 3, 4), double(2, 4), double(4, 2)
    got = erased_by(output, down=down, up=up)
    for place in range(3):
        inner = []
        for row in down.tolist():
            value = sum(weight * one for weight, one in zip(row, output[0, place].tolist(), strict=True))
            inner.append(value * 0.5 * (1 + math.erf(value / math.sqrt(2))))
        for channel, row in enumerate(up.tolist()):
            expected = sum(weight * one for weight, one in zip(row, inner, strict=True))
            assert float(got[0, place, channel]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_what_is_added_outside_the_mask_is_the_loss_number_by_number() -> None:
    mask = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    mask[..., 0, 1] = 1
    large, small = double(1, 4, 3), double(1, 1, 3)
    outside = [1.0, 0.0, 1.0, 1.0]
    first = (
        sum((share * value) ** 2 for share, row in zip(outside, large[0].tolist(), strict=True) for value in row) / 12
    )
    second = sum((0.75 * value) ** 2 for value in small[0, 0].tolist()) / 3  # a layer of one place: a quarter is masked
    assert locality_loss([large, small], mask).item() == pytest.approx((first + second) / 2, rel=1e-9)


def test_the_mask_is_where_most_attention_goes_to_the_concept() -> None:
    attention = torch.full((1, 2, 16, 3), 0.01)
    attention[0, :, 5] = 0.9  # the place in the second row, second column, of four by four
    mask = mask_of([attention], (4, 4), threshold=0.5)
    assert mask.sum() == 1
    assert mask[0, 0, 1, 1] == 1
    assert mask_of([attention], (8, 8), threshold=0.0).all()


@pytest.mark.parametrize(("count", "size", "found"), [(64, (8, 8), (8, 8)), (8, (8, 16), (2, 4)), (1, (8, 8), (1, 1))])
def test_places_are_laid_out_as_the_latent_is(count: int, size: tuple[int, int], found: tuple[int, int]) -> None:
    assert sides(count, size) == found


def test_soft_tokens_stand_behind_the_last_word_and_within_the_prompt() -> None:
    given = Condition(torch.zeros(8, 2))
    assert Prompt(given, torch.zeros(8, dtype=torch.bool), 3).behind(2).tolist() == [3, 4]
    assert Prompt(given, torch.zeros(8, dtype=torch.bool), 7).behind(3).tolist() == [5, 6, 7]
    places = Prompt(given, torch.zeros(8, dtype=torch.bool), 4).behind(16).tolist()
    assert len(places) == 16
    assert (min(places), max(places)) == (1, 7)


def test_the_attack_brings_the_prediction_nearer_to_the_concepts(model: Model) -> None:
    method = Receler(**FEW | SMALL, attack_rate=0.02)
    session = Session.start(method, model, STYLE, work=None)
    bank = session.bank(session.plan([(OLD, ())]))
    drawn = bank.draw(4, torch.Generator().manual_seed(2))
    asked = [method._prompt(session, STYLE, NEW)] * 4  # another prompt: there is something to bring back

    def far(given: Condition) -> float:
        with torch.no_grad():
            predicted = session.denoiser.predict(drawn.inputs, drawn.times, given)
        return float((predicted - drawn.predictions[1]).square().mean())

    plain = far(Condition.stack([one.given for one in asked]))
    none, some = (replace(method, attack_steps=steps)._attack(session, drawn, asked) for steps in (0, 10))
    assert far(none) == pytest.approx(plain, rel=1e-5)
    assert far(some) < plain


@torch.no_grad()
def predicted(model: Model, text: str, edit: Edit | None) -> Tensor:
    pipe = model.pipeline()
    with guide_of(edit, model).attached(pipe):
        denoiser = Denoiser.from_pipe(model, pipe)
        inputs = torch.randn(8, *denoiser.shape, generator=torch.Generator().manual_seed(9))
        given = Condition.stack(model.encode([text] * 8).conditions())
        return denoiser.predict(inputs, torch.arange(100, 900, 100), given)


def test_erasers_act_while_they_are_attached_and_at_their_strength(model: Model, edit: Edit) -> None:
    plain, half, whole = (predicted(model, OLD, one) for one in (None, edit.scaled(0.5), edit))
    assert not torch.equal(plain, whole)
    assert 0 < float((half - plain).norm()) < float((whole - plain).norm())
    assert torch.equal(predicted(model, OLD, edit.scaled(0.0)), plain)
    pipe = model.pipeline()
    with guide_of(edit, model).attached(pipe):
        pass
    assert not any(module._forward_hooks for module in pipe.unet.modules())


def test_they_are_saved_and_loaded_to_the_bit(model: Model, edit: Edit, tmp_path: Path) -> None:
    edit.save(tmp_path / "receler.safetensors")
    again = Edit.load(tmp_path / "receler.safetensors")
    assert again.content == edit.content
    assert torch.equal(predicted(model, OLD, again), predicted(model, OLD, edit))
    other = replace(edit, modules={name: 2 * value for name, value in edit.modules.items()})
    assert other.content != edit.content


def test_no_weight_changes_and_one_eraser_stands_behind_each_layer(model: Model, edit: Edit) -> None:
    layers = [name for name, _ in model.pipeline().unet.named_modules() if name.endswith(".attn2")]
    assert set(edit.modules) == {f"unet.{name}.{side}" for name in layers for side in ("down", "up")}
    assert not edit.touches
    assert edit.guidance


@pytest.mark.parametrize("form", ["lora", "folder", "checkpoint"])
def test_every_export_refuses_it_in_one_line_and_writes_nothing(
    form: str, model: Model, edit: Edit, tmp_path: Path
) -> None:
    with pytest.raises(BadEdit, match=r"receler acts while sampling and changes no weight, so it cannot be exported"):
        export(form, model, edit, target=tmp_path / "out" / "made.safetensors")
    assert not any(one.is_file() for one in tmp_path.rglob("*"))


def test_an_eraser_that_fits_no_layer_is_refused_in_one_line(model: Model, edit: Edit) -> None:
    name = next(name for name in edit.modules if name.endswith(".up"))
    for modules in (
        {**edit.modules, name: edit.modules[name][:-1]},
        {key: value for key, value in edit.modules.items() if key != name},
        {**edit.modules, "unet.nowhere.attn2.up": edit.modules[name]},
    ):
        with pytest.raises(BadEdit, match="does not fit this model"):
            guide_of(replace(edit, modules=modules), model)


def test_a_file_of_modules_that_says_it_changes_weights_is_damaged(edit: Edit, tmp_path: Path) -> None:
    replace(edit, guidance=False).save(tmp_path / "edit.safetensors")
    with pytest.raises(BadEdit, match="holds modules"):
        Edit.load(tmp_path / "edit.safetensors")


def test_training_moves_the_targets_prompt_to_the_anchors(model: Model) -> None:
    method = Receler(**MANY | SMALL | {"attack_steps": 0}, anchored=True, eta=0.0)
    task = Task(STYLE.targets)
    before, after = (
        float((predicted(model, OLD, one) - predicted(model, NEW, None)).norm()) for one in (None, method(model, task))
    )
    assert after < 0.9 * before


def test_more_locality_adds_less_outside_the_concept(model: Model) -> None:
    def added(weight: float) -> float:
        found = Receler(**MANY | SMALL | {"steps": 20}, locality=weight, threshold=1.0)(model, STYLE)
        return sum(float(value.square().sum()) for name, value in found.modules.items() if name.endswith(".up"))

    assert added(1e4) < 0.5 * added(0.0)


def test_several_targets_with_all_their_words_share_erasers(model: Model) -> None:
    task = Task((Target("cat", "object", synonyms=("kitty",)), Target("José Car", "object", anchor="fish")))
    assert Receler(**FEW, **SMALL)(model, task).modules


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_a_model_that_mixes_text_and_image_is_refused_by_name(family: str, family_model: Opener) -> None:
    with pytest.raises(BadModel, match=family):
        Receler(**FEW)(family_model(family), STYLE)


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"eta": -1.0}, {"locality": -1.0}, {"threshold": 2.0}, {"attack_steps": -1}, {"soft": 0}]
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        Receler(**options)
