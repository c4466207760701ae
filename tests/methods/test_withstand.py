"""Withstand: its loss number by number, its pool, and what an inversion finds against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.context import RunContext
from erase.errors import BadModel, BadOption
from erase.methods.redirect import Redirect
from erase.methods.training.inversion import place
from erase.methods.training.session import Session
from erase.methods.training.trainer import draws
from erase.methods.withstand import Lesson, Pictures, Pool, Withstand
from erase.models import Condition, Model
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.trained import FEW, NEW, OLD, STYLE, square

OWN: dict[str, Any] = {"pictures": 4, "pool": 2, "life": 2, "keep_batch": 2, "keep_trajectories": 2, "contexts": 0}


def lesson(model: Model, task: Task = STYLE, **more: Any) -> Lesson:
    options = Withstand(**FEW | OWN | more)
    session = Session.start(options, model, task, work=None, text_encoder=True)
    becomes = dict(session.asked)
    pictures = Pictures.of(session, becomes, options.pictures)
    kept, anchored = (session.kept_bank(becomes.values(), 2) for _ in range(2))
    return Lesson(options, session, pictures, kept, anchored, becomes, Redirect()(model, task).text_maps[0])


def test_the_loss_is_the_formula_number_by_number(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lesson(model, batch=3, eta=0.7, keep_weight=2.0)
    asked: list[tuple[Tensor, Tensor]] = []
    predict = made.session.denoiser.predict

    def noted(inputs: Tensor, times: Tensor, given: Condition) -> Tensor:
        asked.append((inputs, predict(inputs, times, given)))
        return asked[-1][1]

    monkeypatch.setattr(made.session.denoiser, "predict", noted)
    got = float(made(0, draws(0, 0)).detach())
    inputs, predicted = asked[0]
    rows = [
        next(row for row, seen in enumerate(made.forget.noised.inputs) if torch.equal(seen, one)) for one in inputs[:3]
    ]
    generator = draws(0, 0)  # what a step draws before its states: an element of the pool, and its pictures
    torch.randint(2, (1,), generator=generator)
    assert torch.equal(made._rows(0, generator), torch.tensor(rows))
    texts = [made.forget.prompts[row] for row in rows]
    shares = made._states(texts, 0, torch.zeros(2, made.encoder.table.shape[1]), generator=generator)[1]
    assert shares[0] == 1
    assert 0.2 <= shares[1] <= 1.3
    assert shares[2] == 0
    held = made._held(generator)[3]
    aims = [
        anchor + 0.7 * share * beyond
        for anchor, beyond, share in zip(
            made.forget.anchor[rows].double(), made.forget.beyond[rows].double(), shares, strict=True
        )
    ]
    expected = square(predicted[:3], torch.stack(aims)) + 2 * square(predicted[3:], held)
    assert got == pytest.approx(expected, rel=1e-5)


def test_beyond_is_from_the_targets_prediction_to_the_anchors(model: Model) -> None:
    made = lesson(model)
    noised, session = made.forget.noised, made.session
    with torch.no_grad():
        anchor, target = (noised.predicted(session, [text] * 4) for text in (NEW, OLD))
    torch.testing.assert_close(made.forget.anchor, anchor, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.forget.beyond, anchor - target, rtol=1e-4, atol=1e-5)


def test_the_pool_descends_as_adam_does_and_starts_anew_at_its_lifes_end(model: Model) -> None:
    made = lesson(model, life=4, search_rate=0.02)
    pool, generator = made.pool, draws(0, 7)
    start = pool.state["pool"][1].clone()
    expected = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([expected], lr=0.02)
    other = pool.state["pool"][0].clone()
    for _ in range(3):
        slope = torch.randn(start.shape, generator=generator)
        expected.grad = slope.clone()
        adam.step()
        pool.descend(1, slope, generator)
    torch.testing.assert_close(pool.state["pool"][1], expected.detach())
    pool.descend(1, torch.ones_like(start), generator)
    assert pool.state["taken"].tolist() == [0, 0]
    assert not pool.state["means"].any()
    table = made.encoder.table
    assert all(bool((table == token).all(1).any()) for token in pool.state["pool"][1])  # words again
    assert torch.equal(pool.state["pool"][0], other)


def test_each_element_of_the_pool_is_searched_on_pictures_of_its_own_target(model: Model) -> None:
    task = Task((Target("noto", "style", anchor="blob"), Target("José Mono", "style", anchor="blob")))
    made = lesson(model, task, batch=6, pictures=24)
    for number, name in enumerate(("noto", "José Mono")):
        rows = made._rows(number, draws(0, 3))
        assert all(name in made.forget.prompts[row] for row in rows[:2].tolist())


def test_half_of_the_pool_stands_in_front_of_the_prompt_and_leaves_the_name(model: Model) -> None:
    made = lesson(model, batch=3)
    tokens = made.encoder.table[:2].float()
    for number in (0, 1):
        got = made._states([OLD] * 3, number, tokens, generator=draws(0, 1))[0][0]
        words = () if number else ("noto",)
        places = place(made.tokenizer, [OLD], words, count=2)
        read = made.encoder.read(places.ids, tokens[None], places.places).states[0].double()
        torch.testing.assert_close(got.double(), read @ made.moves.matrix().T, rtol=1e-4, atol=1e-4)


def test_a_starting_pool_has_the_targets_names_in_it(model: Model) -> None:
    made = lesson(model, pool=8)
    pool = Pool(made.options, made.encoder, [made.tokenizer("noto", add_special_tokens=False)["input_ids"]])
    name = made.encoder.table[made.tokenizer("noto", add_special_tokens=False)["input_ids"][0]]
    named = [torch.equal(tokens[0], name) for tokens in pool.state["pool"]]
    assert 1 < sum(named) < 8


def test_it_moves_the_words_by_the_closed_form_and_trains_on_what_that_moves_to(model: Model) -> None:
    """The edit's weights are (W + D) M: with the closed form's map M and what was trained without it."""
    edit = Withstand(**FEW | OWN)(model, STYLE)
    (moves,) = edit.text_maps
    assert moves.sites == Redirect()(model, STYLE).text_maps[0].sites
    site = moves.sites[0]
    weight = model.weight(site)
    trained = edit.changed_tensor(site, weight).double() @ torch.linalg.inv(moves.matrix())
    assert 1e-4 < (trained - weight).abs().max() < 0.05  # four steps of 1e-3
    assert any(name.startswith("unet.conv_in") for name in edit.deltas)


def test_training_brings_down_the_loss_of_steps_that_it_never_drew(model: Model) -> None:
    made = lesson(model, steps=150, batch=6, learning_rate=1e-5)
    parameters = made.session.chosen("all")

    def mean() -> float:
        return sum(float(made(step, draws(0, step)).detach()) for step in range(1000, 1008)) / 8

    before = mean()
    made.session.train(parameters, made, state=made.pool.state)
    assert mean() < 0.9 * before


def test_a_training_that_was_stopped_ends_in_the_same_edit(model: Model, tmp_path: Path) -> None:
    options = FEW | OWN
    whole = Withstand(**options)(model, STYLE)
    said: list[int] = []

    def stop(text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        if text == "training":
            said.append(done)
            if done == 3 and len(said) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Withstand(**options)(model, STYLE, work=RunContext(tmp_path, report=stop, seconds=0.0))
    resumed = Withstand(**options)(model, STYLE, work=RunContext(tmp_path, report=stop, seconds=0.0))
    assert said[3:] == [3, 4]  # the third step was made, and not yet kept
    assert resumed.content == whole.content


def test_a_model_of_two_text_encoders_is_refused_by_name(family_model: Opener) -> None:
    with pytest.raises(BadModel, match="one text encoder"):
        Withstand(**FEW)(family_model("stable-diffusion-xl"), STYLE)


@pytest.mark.parametrize(
    "options", [{"eta": -1.0}, {"keep_weight": -1.0}, {"pool": 0}, {"tokens": 0}, {"search_rate": 0.0}, {"life": 0}]
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        Withstand(**options)
