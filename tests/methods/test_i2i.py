"""Image-to-image unlearning against its paper's equation, what it hides, and which side of the network it trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from erase.errors import BadModel, BadOption
from erase.methods.i2i import I2I, encoded, encoder_side, hide, i2i_loss, like_noise, read
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.session import Session
from erase.models import Condition, Model, open_model
from erase.sampling.guides import hooked
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.trained import FEW, MANY, OLD, STYLE

SMALL: dict[str, Any] = {"keep_batch": 2, "keep_trajectories": 2}
WHOLE: dict[str, Any] = {"side": "whole", "aim": "anchor"}
KEPT = Task(STYLE.targets, keeps=("a dog in blob style", "a fish"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loss_holds_what_stays_and_weighs_what_is_forgotten_number_by_number() -> None:
    now, frozen = (
        [torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=generator(seed + part)) for part in range(2)]
        for seed in (0, 10)
    )
    total = 0.0
    for one, other in zip(now, frozen, strict=True):
        size = sum(value**2 for value in other.flatten().tolist()) / other.numel()
        far = [
            sum((x - y) ** 2 for x, y in zip(left.flatten().tolist(), right.flatten().tolist(), strict=True)) / 8 / size
            for left, right in zip(one, other, strict=True)
        ]
        total += ((far[1] + far[2]) / 2 + 0.25 * far[0]) / 2
    assert i2i_loss(now, frozen, forgotten=1, alpha=0.25).item() == pytest.approx(total, rel=1e-12)


def test_a_rectangle_is_hidden_and_all_else_is_as_it_was() -> None:
    clean = torch.arange(2 * 4 * 8 * 8).reshape(2, 4, 8, 8) / 100.0
    shares = []
    for seed in range(20):
        for one, before in zip(hide(clean, 0.75, generator(seed)), clean, strict=True):
            changed = (one != before).all(0)
            assert torch.equal(changed, (one != before).any(0))
            rows, columns = changed.any(1), changed.any(0)
            assert torch.equal(changed, rows[:, None] & columns)
            shares.append(float(changed.float().mean()))
    assert max(shares) <= 0.75**2
    assert len(set(shares)) > 5
    assert torch.equal(hide(clean, 0.0, generator()), clean)


def test_the_noise_has_each_channels_mean_and_spread() -> None:
    clean = torch.randn(8, 3, 32, 32, generator=generator()) * torch.tensor([1.0, 2.0, 3.0])[:, None, None] + 5
    noise = like_noise(clean, generator(1))
    torch.testing.assert_close(noise.mean((0, 2, 3)), clean.mean((0, 2, 3)), rtol=0.05, atol=0.1)
    torch.testing.assert_close(noise.std((0, 2, 3)), clean.std((0, 2, 3)), rtol=0.05, atol=0.1)


def edited(model: Model, edit: Any = None) -> Denoiser:
    pipe = model.pipeline()
    if edit is not None:
        edit.apply(pipe)
    return Denoiser.from_pipe(model, pipe)


def asked(model: Model, prompt: str, count: int) -> Condition:
    return Condition.stack(model.encode([prompt] * count).conditions())


def test_what_is_handed_over_is_all_that_the_decoder_side_is_given(model: Model) -> None:
    session = Session.start(I2I(**FEW), model, STYLE, work=None)
    network: Any = session.denoiser.network
    given: list[Tensor] = []
    hooks = [
        block.register_forward_pre_hook(
            lambda module, args, kwargs: given.extend([kwargs["hidden_states"], *kwargs["res_hidden_states_tuple"]]),
            with_kwargs=True,
        )
        for block in network.up_blocks
    ]
    with encoded(network) as parts, torch.no_grad():
        session.denoiser.predict(torch.ones(1, *session.denoiser.shape), torch.tensor([400]), session.given([OLD]))
    for hook in hooks:
        hook.remove()
    handed = {part.data_ptr() for part in parts}
    first = {one.data_ptr() for one in given}
    assert len(parts) > 2
    assert {part.data_ptr() for part in parts[-1:]} <= first
    assert len(handed & first) >= len(parts) - 1  # all but, perhaps, the first convolution's output


def test_the_encoder_side_alone_is_trained(model: Model) -> None:
    session = Session.start(I2I(**FEW), model, STYLE, work=None)
    chosen = encoder_side(session, "all")
    trained = {name for name, value in session.denoiser.network.named_parameters() if value.requires_grad}
    assert set(chosen) == trained
    assert {name.partition(".")[0] for name in chosen} <= {"conv_in", "down_blocks", "mid_block", "time_embedding"}


@pytest.mark.parametrize(("aim", "side"), [("noise", "encoder"), ("anchor", "encoder"), ("anchor", "whole")])
@torch.no_grad()
def test_training_brings_what_is_read_from_the_targets_picture_to_the_aim(aim: str, side: Any, model: Model) -> None:
    options: dict[str, Any] = {
        "noise": {"learning_rate": 1e-3},
        "anchor": {"learning_rate": 3e-3, "layers": "x-strict"},
    }
    method = I2I(**MANY | SMALL | options[aim], aim=aim, side=side, alpha=4.0, hidden=0.0)  # type: ignore[arg-type]
    with torch.enable_grad():
        edit = method(model, KEPT)
    session = Session.start(method, model, KEPT, work=None)
    bank = session.bank(session.plan((text, ()) for text, _ in session.asked))
    clean = bank.clean[:2].repeat(4, 1, 1, 1)
    noise, times = torch.randn(clean.shape, generator=generator(3)), torch.full((8,), 400)
    wanted = like_noise(clean, generator(4)) if aim == "noise" else clean
    given = asked(model, OLD if aim == "noise" else "a cat in blob style", 8)
    frozen = read(edited(model), (wanted, noise), times, given=given, side=side)

    far = []
    for one in (None, edit):
        now = read(edited(model, one), (clean, noise), times, given=asked(model, OLD, 8), side=side)
        pairs = zip(now, frozen, strict=True)
        far.append(sum(float((now - then).square().mean() / then.square().mean()) for now, then in pairs))
    assert far[1] < 0.9 * far[0]


@torch.no_grad()
def test_a_decoder_side_that_is_handed_what_the_anchor_is_read_as_still_draws_the_target() -> None:
    """Why there is `side: whole`: on the embedded model an encoder side that has forgotten changes little."""
    model = open_model("emoji")
    denoiser = edited(model)
    blocks: Any = [*denoiser.network.down_blocks, denoiser.network.mid_block]
    noisy, times = torch.stack([denoiser.noise(seed) for seed in range(4)]), torch.full((4,), 800)
    target, anchor = (asked(model, f"a {name} in noto style", 4) for name in ("cat", "dog"))
    with encoded(denoiser.network) as parts:
        as_anchor = denoiser.predict(noisy, times, anchor)
    left = iter(parts)

    def hand_over(module: Any, inputs: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return next(left)
        given = tuple(next(left) for _ in output[1])
        return given[-1], given

    as_target = denoiser.predict(noisy, times, target)
    with hooked((block, hand_over) for block in blocks):
        mixed = denoiser.predict(noisy, times, target)
    assert next(left, None) is None
    assert 0 < (mixed - as_target).norm() < 0.7 * (mixed - as_anchor).norm()


def test_the_whole_trains_both_sides(model: Model) -> None:
    trained = {name.split(".")[1] for name in I2I(**FEW, **SMALL, **WHOLE)(model, STYLE).deltas}
    assert {"down_blocks", "mid_block", "up_blocks"} <= trained
    encoder = {name.split(".")[1] for name in I2I(**FEW, **SMALL)(model, STYLE).deltas}
    assert "down_blocks" in encoder
    assert "up_blocks" not in encoder


def test_several_targets_with_all_their_words_are_forgotten(model: Model) -> None:
    task = Task((Target("cat", "object", synonyms=("kitty",)), Target("José Car", "object", anchor="fish")))
    assert I2I(**FEW, **SMALL)(model, task).deltas


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_a_model_without_an_encoder_side_is_refused_by_name(family: str, family_model: Opener) -> None:
    with pytest.raises(BadModel, match=f"{family} lacks; try side: whole with aim: anchor"):
        I2I(**FEW)(family_model(family), STYLE)
    assert I2I(**FEW, **SMALL, **WHOLE)(family_model(family), STYLE).deltas


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0}, {"aim": "nothing"}, {"hidden": 1.5}, {"keep_batch": 0}, {"side": "whole"}]
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        I2I(**options)
