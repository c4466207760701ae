"""CASteer's baked change against its equation, one output at a time, and what its options promise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from erase.errors import BadModel, BadOption
from erase.methods.casteer import WRITER, CASteer, directions_of, steered_bias
from erase.methods.training.denoiser import Denoiser
from erase.models import Condition, Model
from erase.run.options import method_with
from erase.sampling.guides import hooked
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.trained import NEW, OLD, STYLE

FEW = CASteer(scale=1.0, pairs=2, steps=3, phrasings="own")
TWO = Task((Target("cat", "object", "dog"), Target("Café Blob", "object", "car")))


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(shape[0]))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_baked_change_is_the_steering_of_every_output(scale: float) -> None:
    weight, bias, inputs, mean = vectors(6, 5), vectors(6), vectors(9, 5), vectors(1, 6)[0]
    directions = torch.linalg.qr(vectors(6, 2))[0].T
    changed = weight - scale * directions.T @ directions @ weight
    for centre in (None, mean):
        got = inputs @ changed.T + bias + steered_bias(bias, directions, centre, scale=scale)
        for x, y in zip(inputs, got, strict=True):
            expected = before = weight @ x + bias
            for s in directions:
                has = torch.dot(s, before) - (0.0 if centre is None else torch.dot(s, centre))
                expected = expected - scale * has * s
            torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_the_papers_steering_of_what_points_to_the_concept_is_the_baked_one() -> None:
    weight, bias, inputs = vectors(6, 5), vectors(6), vectors(9, 5)
    s = torch.nn.functional.normalize(vectors(1, 6)[0], dim=0)
    outputs = inputs @ weight.T + bias
    steered = outputs - 2.0 * (outputs @ s).clamp(min=0)[:, None] * s
    baked = inputs @ (weight - 2.0 * torch.outer(s, s @ weight)).T + bias + steered_bias(bias, s[None], None, scale=2.0)
    towards = outputs @ s > 0
    assert towards.any()
    assert not towards.all()
    torch.testing.assert_close(baked[towards], steered[towards], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(baked[~towards], steered[~towards])


@torch.no_grad()
def written(model: Model, text: str, edit: Any = None) -> torch.Tensor:
    """What the first writing layer gives on noise at some times, the mean over patches."""
    pipe = model.pipeline()
    if edit is not None:
        edit.apply(pipe)
    denoiser, found = Denoiser.from_pipe(model, pipe), []
    layer = next(module for name, module in denoiser.network.named_modules() if name.endswith(WRITER))
    with hooked([(layer, lambda module, inputs, output: found.append(output.mean(1)) or output)]):
        inputs = torch.randn(4, *denoiser.shape, generator=torch.Generator().manual_seed(3))
        denoiser.predict(
            inputs, torch.tensor([900, 700, 500, 300]), Condition.stack(model.encode([text] * 4).conditions())
        )
    return found[0].double()


def test_what_the_first_layer_writes_for_the_target_becomes_what_it_writes_for_the_anchor(model: Model) -> None:
    edit = replace(FEW, pairs=4)(model, STYLE)
    before, after, aim = written(model, OLD), written(model, OLD, edit), written(model, NEW)
    change = edit.low_rank[0]
    direction = torch.nn.functional.normalize(change.up[:, 0].double(), dim=0)
    assert ((after - aim) @ direction).abs().mean() < 0.5 * ((before - aim) @ direction).abs().mean()


def test_each_target_takes_one_direction_of_each_layer_and_its_bias(model: Model) -> None:
    edit = FEW(model, TWO)
    assert {one.up.shape[1] for one in edit.low_rank} == {2}
    for one in edit.low_rank:
        units = one.up.double().T @ one.up.double()
        torch.testing.assert_close(units, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-6)
    assert {name.rpartition(".attn2.")[2] for name in edit.touches} == {"to_out.0.weight", "to_out.0.bias"}
    assert set(edit.info.beyond) == set(edit.touches)


def test_the_papers_preset_leaves_nothing_along_the_direction_and_turns_it_round(model: Model) -> None:
    made: Any = method_with("casteer", {"preset": "paper", "pairs": 2, "steps": 3})
    assert (made.value, made.scale, made.guidance) == ("zero", 2.0, 7.5)
    edit = made(model, STYLE)
    before, after = written(model, OLD), written(model, OLD, edit)
    direction = torch.nn.functional.normalize(edit.low_rank[0].up[:, 0].double(), dim=0)
    torch.testing.assert_close(after @ direction, -before @ direction, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl"])
def test_it_edits_every_family_with_cross_attention(family: str, family_model: Opener) -> None:
    model = family_model(family)
    assert FEW(model, STYLE).changed(model)


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_a_model_that_mixes_text_and_image_is_refused_by_name(family: str, family_model: Opener) -> None:
    with pytest.raises(BadModel, match=family):
        FEW(family_model(family), STYLE)


def test_targets_that_differ_in_nothing_are_told_and_one_that_is_named_twice_counts_once() -> None:
    shift = vectors(1, 6)
    assert directions_of(torch.cat([shift, 3 * shift])).shape == (1, 6)
    with pytest.raises(BadOption, match="name other anchors"):
        directions_of(torch.zeros(1, 6))


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"pairs": 0}, {"value": "mean"}, {"seed": -1}])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        CASteer(**options)
