"""ESD against its paper's equation, and what its options promise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import BadOption, ModelMismatch, TrainingFailed
from erase.methods.esd import ESD, esd_loss
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.session import CHECKED, Session, target_pairs, target_texts
from erase.models import Condition, Model, open_model
from erase.run.options import method_with
from erase.task import Target, Task
from tests.methods.trained import predictions

STYLE = Task((Target("noto", "style", prompts=("a cat in {} style",)),))
QUICK = ESD(steps=4, batch=2, trajectories=2, sampling_steps=4, learning_rate=1e-3)


def frozen(count: int) -> Tensor:
    return torch.randn(count, 2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.5])
def test_the_loss_is_the_papers_equation_7(eta: float) -> None:
    predicted, (empty, prompted) = frozen(1)[0], frozen(2)
    total = 0.0
    for s, e0, ep in zip(
        predicted.flatten().tolist(), empty.flatten().tolist(), prompted.flatten().tolist(), strict=True
    ):
        total += (s - (e0 - eta * (ep - e0))) ** 2
    got = esd_loss(predicted, torch.stack([empty, prompted]), eta=eta)
    assert got.item() == pytest.approx(total / predicted.numel(), rel=1e-12)


def test_eta_is_the_official_negative_guidance_less_one() -> None:
    empty, prompted = frozen(2)
    official = prompted - 2.0 * (prompted - empty)  # rohitgandikota/erasing today, its default of 2
    assert esd_loss(official, torch.stack([empty, prompted]), eta=1.0).item() == pytest.approx(0, abs=1e-24)
    assert esd_loss(official, torch.stack([empty, prompted]), eta=2.0).item() > 0.1


def test_an_attribute_is_taken_out_of_the_wider_concept() -> None:
    empty, prompted, wider = frozen(3)
    target = wider - 1.5 * (prompted - empty)
    assert esd_loss(target, torch.stack([empty, prompted, wider]), eta=1.5).item() == pytest.approx(0, abs=1e-24)


@torch.no_grad()
def distances(model: Model, edit: Any, text: str) -> tuple[Tensor, Tensor]:
    """How far predictions for a text lie from the erasure's target and how far it was before, on fresh latents."""
    denoiser = Denoiser.of(model)
    inputs = torch.randn(8, *denoiser.shape, generator=torch.Generator().manual_seed(9))
    times = torch.arange(100, 900, 100)
    empty, prompted = (Condition(model.encode([one]).states.expand(8, -1, -1)) for one in ("", text))
    e0, ep = (denoiser.predict(inputs, times, states) for states in (empty, prompted))
    target = e0 - (ep - e0)
    for name, parameter in denoiser.network.named_parameters():
        if f"unet.{name}" in edit.deltas:
            parameter += edit.deltas[f"unet.{name}"]
    return (denoiser.predict(inputs, times, prompted) - target).norm(), (ep - target).norm()


def test_training_brings_predictions_to_the_target_where_it_never_was(model: Model) -> None:
    edit = replace(QUICK, steps=60, batch=4, learning_rate=3e-3)(model, STYLE)
    after, before = distances(model, edit, "a cat in noto style")
    assert after < 0.5 * before


@pytest.mark.parametrize("layers", ["x", "x-strict", "u", "selfattn", "all"])
def test_only_the_chosen_layers_change(model: Model, layers: Any) -> None:
    names = {name for name, delta in replace(QUICK, layers=layers)(model, STYLE).deltas.items() if delta.any()}
    is_chosen = {
        "x": lambda name: ".attn2." in name,
        "x-strict": lambda name: name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")),
        "u": lambda name: ".attn2." not in name,
        "selfattn": lambda name: ".attn1." in name,
        "all": lambda name: True,
    }[layers]
    assert names
    assert all(map(is_chosen, names))
    assert layers != "all" or {"unet.conv_in.weight", "unet.conv_out.bias"} <= names


def test_several_targets_with_all_their_words_are_trained_at_once(model: Model) -> None:
    task = Task((Target("cat", "object", synonyms=("kitty",)), Target("car", "object")))
    session = Session.start(QUICK, model, task, work=None)
    plan = session.plan((text, ()) for text in target_texts(task))
    assert [one.prompt for one in plan.trajectories] == ["cat", "car", "kitty", "cat"]
    assert len({one.seed for one in plan.trajectories}) == 4


def test_erasing_from_a_wider_concept_is_another_edit(model: Model) -> None:
    plain, attribute = QUICK(model, STYLE), replace(QUICK, erase_from="a cat")(model, STYLE)
    assert plain.content != attribute.content


def test_a_target_is_taken_out_of_what_the_wider_concept_draws(model: Model) -> None:
    task = Task((Target("Kelly Noto", "identity", synonyms=("Noto",), prompts=("a portrait of {}",)),))
    options = replace(QUICK, erase_from="a woman")
    asked = options._asked(target_pairs(task))
    assert asked == [("a woman", ("a portrait of Kelly Noto",)), ("a woman", ("a portrait of Noto",))]
    empty, wider, prompted = frozen(3)  # as the bank has them
    target = wider - options.eta * (prompted - empty)
    loss = esd_loss(target, options._ordered(torch.stack([empty, wider, prompted])), eta=options.eta)
    assert loss.item() == pytest.approx(0, abs=1e-24)


def test_an_anchored_target_goes_from_its_anchors_prompt(model: Model) -> None:
    task = Task((Target("noto", "style", anchor="blob", prompts=("a cat in {} style",)),))
    options = {"steps": 60, "batch": 4, "learning_rate": 3e-3}
    plain, anchored = (replace(QUICK, **options, anchored=on)(model, task) for on in (False, True))  # type: ignore[arg-type]
    old, new = "a cat in noto style", "a cat in blob style"
    target = predictions(model, new) - (predictions(model, old) - predictions(model, ""))
    far = [float((predictions(model, old, edit) - target).norm()) for edit in (plain, anchored)]
    assert far[1] < 0.7 * far[0]


def test_a_target_goes_from_one_place() -> None:
    with pytest.raises(BadOption, match=r'erase_from is "a cat" and anchored is true.*give one of them'):
        ESD(erase_from="a cat", anchored=True)


def test_a_run_that_was_killed_ends_in_the_same_edit(model: Model, tmp_path: Path) -> None:
    whole = QUICK(model, STYLE)

    def kill(text: str, done: int, total: int, **words: str) -> None:
        if text == "training" and done == 3:
            raise KeyboardInterrupt

    places = {"folder": tmp_path / "work", "banks": tmp_path / "banks"}
    with pytest.raises(KeyboardInterrupt):
        QUICK(model, STYLE, work=RunContext(**places, report=kill, seconds=0.0))
    again = QUICK(model, STYLE, work=RunContext(**places))
    assert again.content == whole.content
    # two steps were saved and two are left, three evaluations for each of a step's two tuples; the bank lay there
    assert (
        json.loads((tmp_path / "work/cost.json").read_text(encoding="utf-8"))["evaluations"] == 2 * 2 * 3 + 4 * CHECKED
    )


def test_it_costs_its_bank_and_its_steps(model: Model, tmp_path: Path) -> None:
    QUICK(model, STYLE, work=RunContext(tmp_path))
    assert (
        json.loads((tmp_path / "cost.json").read_text(encoding="utf-8"))["evaluations"]
        == 2 * 4 * 2 + 4 * 2 * 3 + 4 * CHECKED
    )


def test_a_half_precision_model_is_trained_in_float32(model: Model, tiny_copy: Path) -> None:
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value.half() for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    deltas = replace(QUICK, learning_rate=1e-6)(open_model(tiny_copy), STYLE).deltas
    assert {delta.dtype for delta in deltas.values()} == {torch.float32}
    # Moves far below half a unit in the last place of a half: the edit keeps them, training in half would lose them.
    moved = torch.cat([delta.flatten() for delta in deltas.values()])
    assert (moved != 0).float().mean() > 0.9
    assert moved.abs().max() < 1e-5


def test_a_learning_rate_that_diverges_is_told(model: Model) -> None:
    with pytest.raises(TrainingFailed, match="try a tenth"):
        replace(QUICK, steps=40, learning_rate=1.0, layers="all", eta=1e30)(model, STYLE)


def test_a_learning_rate_that_changes_nothing_is_told(model: Model) -> None:
    with pytest.raises(TrainingFailed, match="changed no weight"):
        replace(QUICK, learning_rate=1e-30)(model, STYLE)


@pytest.mark.parametrize(("options", "named"), [({"eta": -1.0}, "eta"), ({"layers": "xattn"}, "layers")])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        ESD(**options)


def test_gradient_checkpointing_trains_the_same(model: Model) -> None:
    plain, thrifty = (replace(QUICK, gradient_checkpointing=saved)(model, STYLE) for saved in (False, True))
    for name, delta in plain.deltas.items():
        torch.testing.assert_close(thrifty.deltas[name], delta, rtol=1e-3, atol=1e-5)


def test_a_network_that_was_destroyed_is_told(model: Model) -> None:
    with pytest.raises(TrainingFailed, match=r"esd has destroyed the model in 40 steps.*a third of learning_rate"):
        replace(QUICK, steps=40, learning_rate=0.3, layers="all")(model, STYLE)


def test_an_edit_that_does_next_to_nothing_is_told(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    replace(QUICK, learning_rate=1e-6)(model, STYLE)
    (told,) = [record.message for record in caplog.records if "next to nothing" in record.message]
    assert "Try more steps, or 10 times learning_rate 1e-06" in told
    caplog.clear()
    replace(QUICK, learning_rate=1e-9)(model, STYLE)
    assert "next to nothing" in caplog.text
    caplog.clear()
    replace(QUICK, learning_rate=1e-2)(model, STYLE)
    assert "next to nothing" not in caplog.text


def test_an_edit_outside_the_fingerprint_is_not_applied_twice(model: Model, tmp_path: Path) -> None:
    edit = replace(QUICK, layers="selfattn")(model, STYLE)
    edit.save(tmp_path / "edit.safetensors")
    again, pipe = Edit.load(tmp_path / "edit.safetensors"), model.pipeline()
    assert set(again.info.beyond) == set(again.touches)
    with again.apply(pipe), pytest.raises(ModelMismatch, match="has changed it already"):
        again.apply(pipe)
    with again.apply(pipe), pytest.raises(ModelMismatch, match="has changed it already"):
        (again + again).apply(pipe)
    again.apply(pipe).undo()


def test_a_preset_is_the_papers_and_what_stands_beside_it_goes_before() -> None:
    made = method_with("esd", {"preset": "nsfw", "steps": 5})
    assert made == ESD(steps=5, learning_rate=1e-5, eta=1.0, layers="u", sampling_steps=50)
    with pytest.raises(BadOption, match='preset of esd is "person"; expected one of style, object, identity, nsfw'):
        method_with("esd", {"preset": "person"})
    with pytest.raises(BadOption, match="expected one of hardened"):
        method_with("redirect", {"preset": "style"})
