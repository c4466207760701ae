"""AdvUnlearn against its paper's equations, its attack, and what it changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.advunlearn import AdvUnlearn, advunlearn_loss, strongest
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.text import TextEncoder
from erase.models import Model, open_model
from tests.methods.trained import FEW, OLD, STYLE, seen, square

METHOD = AdvUnlearn(**FEW, warm_up=1, attack_steps=2, keep_batch=2)
KEPT = replace(STYLE, keeps=("a dog", "a car"))


def test_the_loss_erases_and_holds() -> None:
    predicted, still, target, before = seen(4)
    expected = square(predicted, target) + 0.3 * square(still, before)
    got = advunlearn_loss(predicted, still, aims=(target, before), keep_weight=0.3)
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_the_attack_goes_down_its_loss_and_gives_nothing_else_a_gradient() -> None:
    weight, aim = torch.tensor([[2.0, 0.5]], requires_grad=True), torch.tensor([1.0])
    start = torch.zeros(2)

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        return ((weight @ tokens - aim) ** 2).sum()

    found = strongest(loss, start, steps=20, rate=0.02)
    assert loss(found) < 0.5 * loss(start)
    assert not start.any()
    assert weight.grad is None
    assert torch.equal(strongest(loss, start, steps=0, rate=0.1), start)


def text_encoder(model: Model) -> TextEncoder:
    return TextEncoder.of(Denoiser.of(model, text_encoder=True).text_encoder)


def test_soft_tokens_stand_between_the_start_and_the_words(model: Model) -> None:
    encoder = text_encoder(model)
    table = encoder.module.get_input_embeddings().weight
    hard, plain = model.encode(["dog a cat"]), model.encode(["a cat"])
    word = table[hard.ids[0, 1]].detach()
    with torch.no_grad():
        torch.testing.assert_close(encoder.states(plain.ids, word[None, None]), hard.states, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(encoder.states(plain.ids), plain.states, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(hard.states, plain.states)


def test_only_the_text_encoders_layers_change(model: Model) -> None:
    edit = METHOD(model, KEPT)
    changed = {name for name, delta in edit.deltas.items() if delta.any()}
    assert changed
    assert all(name.startswith(("text_encoder.encoder.layers.", "text_encoder.final_layer_norm.")) for name in changed)


def test_a_network_that_was_not_trained_is_not_said_to_have_changed_next_to_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    METHOD(open_model("emoji"), STYLE)
    assert "next to nothing" not in caplog.text


@pytest.mark.slow
def test_an_anchored_target_goes_from_its_anchors_prompt(model: Model) -> None:
    assert METHOD(model, STYLE).content != replace(METHOD, anchored=True)(model, STYLE).content


def test_the_attack_and_the_keeps_shape_the_edit(model: Model) -> None:
    chosen = [METHOD, replace(METHOD, warm_up=99), replace(METHOD, attack_steps=3), replace(METHOD, prefix=2)]
    contents = [method(model, KEPT).content for method in chosen]
    assert len({*contents, METHOD(model, STYLE).content}) == 5


@torch.no_grad()
@pytest.mark.slow
def test_the_concept_is_left_behind(model: Model) -> None:
    method = AdvUnlearn(**FEW | {"steps": 60, "batch": 4}, warm_up=99, keep_weight=0.0)
    edit = method(model, STYLE)
    pipe = model.pipeline()
    inputs = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    times = torch.arange(100, 900, 100)

    def asked(text: str) -> torch.Tensor:
        states = pipe.text_encoder(model.encode([text]).ids).last_hidden_state.expand(8, -1, -1)
        return torch.as_tensor(pipe.unet(inputs, times, encoder_hidden_states=states).sample)

    empty, prompted = asked(""), asked(OLD)
    target = empty - (prompted - empty)
    edit.apply(pipe)
    assert (asked(OLD) - target).norm() < 0.8 * (prompted - target).norm()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"prefix": 0}, "prefix"), ({"keep_weight": -1.0}, "keep_weight"), ({"warm_up": -1}, "warm_up")],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        AdvUnlearn(**options)
