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
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.inversion import place
from erase.methods.training.session import Session
from erase.methods.training.trainer import draws
from erase.methods.withstand import Lesson, Moves, Pictures, Pool, Withstand
from erase.models import Condition, Model, open_model
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.trained import FEW, NEW, OLD, STYLE, predictions, square

CLIPS = ("stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3")
OWN: dict[str, Any] = {"pictures": 4, "pool": 2, "life": 2, "keep_batch": 2, "keep_trajectories": 2, "contexts": 0}


def lesson(model: Model, task: Task = STYLE, **more: Any) -> Lesson:
    options = Withstand(**FEW | OWN | more)
    session = Session.start(options, model, task, work=None)
    becomes = dict(session.asked)
    pictures = Pictures.of(session, becomes, options.pictures)
    kept, anchored = (session.kept_bank(becomes.values(), 2) for _ in range(2))
    moves = Moves.by(Redirect()(model, task).text_maps, model)
    return Lesson(options, session, pictures, kept, anchored, becomes, moves)


@pytest.mark.parametrize("family", CLIPS)
def test_the_loss_is_the_formula_number_by_number(
    without_t5: Opener, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lesson(without_t5(family), batch=3, eta=0.7, keep_weight=2.0)
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
    shares = made._given(texts, 0, torch.zeros_like(made.pool.state["pool"][0]), generator=generator)[1]
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
    table = made.reader.tables[0]
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
    tokens = made.reader.embeddings(torch.arange(2))
    for number in (0, 1):
        got = made._given([OLD] * 3, number, tokens, generator=draws(0, 1))[0].states[0]
        words = () if number else ("noto",)
        places = place(made.tokenizer, [OLD], words, count=2)
        read = made.reader.read(places.ids, tokens[None], places.places).states[0].double()
        torch.testing.assert_close(got.double(), read @ made.moves.matrices["tokens"].double().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", CLIPS)
def test_tokens_states_and_pooled_ones_are_moved_and_mixed_alike(without_t5: Opener, family: str) -> None:
    model = without_t5(family)
    maps = Redirect()(model, STYLE).text_maps
    made = lesson(model, batch=3)
    tokens = made.reader.embeddings(torch.tensor([3, 4]))
    got, shares = made._given([OLD] * 3, 0, tokens, generator=draws(0, 2))
    places = place(made.tokenizer, [OLD], ["noto"], count=2)
    read, old, new = made.reader.read(places.ids, tokens[None], places.places), *model.encode([OLD, NEW]).conditions()
    generator = draws(0, 2)  # one kept prompt alone, so that what stands aside is nothing
    for _ in range(2):
        torch.randint(1, (1,), generator=generator)
    share = 0.2 + 1.1 * float(torch.rand((), generator=generator))
    assert shares[1] == share
    torch.randn((), generator=generator)
    plain = (old, new)[int(torch.randint(2, (1,), generator=generator))]
    assert len(maps) == (1 if family == "stable-diffusion" else 2)
    for number, kind in enumerate(("states", "pooled")[: len(maps)]):
        first, second, third = getattr(got, kind).double()
        matrix, o, n = maps[number].matrix(), getattr(old, kind).double(), getattr(new, kind).double()
        torch.testing.assert_close(first, getattr(read, kind)[0].double() @ matrix.T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(second, n + share * (o - n), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(third, getattr(plain, kind).double() @ matrix.T, rtol=1e-4, atol=1e-4)
        assert (first - getattr(read, kind)[0]).abs().max() > 1e-3  # the map does move


def test_a_starting_pool_has_the_targets_names_in_it(model: Model) -> None:
    made = lesson(model, pool=8)
    pool = Pool(made.options, made.reader, [made.tokenizer("noto", add_special_tokens=False)["input_ids"]])
    name = made.reader.tables[0][made.tokenizer("noto", add_special_tokens=False)["input_ids"][0]]
    named = [torch.equal(tokens[0], name) for tokens in pool.state["pool"]]
    assert 1 < sum(named) < 8


@pytest.mark.parametrize("family", CLIPS)
def test_it_moves_the_words_by_the_closed_form_and_trains_on_what_that_moves_to(
    without_t5: Opener, family: str
) -> None:
    """The edit's weights are (W + D) M: with the closed form's maps M and what was trained without them.

    So the edited network predicts for a prompt what W + D does for its moved states.
    """
    model = without_t5(family)
    edit = Withstand(**FEW | OWN, decay=0.0)(model, STYLE)
    assert [one.sites for one in edit.text_maps] == [one.sites for one in Redirect()(model, STYLE).text_maps]
    pipe = model.pipeline()
    edit.apply(pipe)
    network = dict(getattr(pipe, model.backbone).named_parameters())
    for one in edit.text_maps:
        whole = torch.eye(model.weight(one.sites[0]).shape[1], dtype=torch.float64)
        whole[: len(one.up), : len(one.up)] = torch.linalg.inv(one.matrix())  # other columns read no text
        for site in one.sites:
            trained = edit.changed_tensor(site, model.weight(site)).double() @ whole
            assert 1e-4 < (trained - model.weight(site)).abs().max() < 0.05  # four steps of 1e-3
            network[site.partition(".")[2]].data.copy_(trained)
    assert any(name.endswith(("conv_in.weight", "pos_embed.proj.weight")) for name in edit.deltas)
    denoiser = Denoiser.from_pipe(model, pipe)
    noise = torch.randn(8, *denoiser.shape, generator=torch.Generator().manual_seed(9))
    moved = Moves.by(edit.text_maps, model)(Condition.stack(model.encode([OLD] * 8).conditions()))
    with torch.no_grad():
        found = denoiser.predict(noise, torch.arange(100, 900, 100), moved)
    torch.testing.assert_close(found, predictions(model, OLD, edit), rtol=1e-3, atol=1e-4)
    assert (found - predictions(model, OLD)).abs().max() > 1e-3


@pytest.mark.parametrize("embedded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_brings_down_the_loss_of_steps_that_it_never_drew(embedded: bool, model: Model) -> None:
    """Of a tiny model, and of `emoji-flow`, which has two text encoders and a pooled state."""
    if embedded:
        task = Task((Target("noto", "style", anchor="fluent"),))
        options = {"steps": 40, "batch": 6, "keep_weight": 0.0, "max_sequence_length": 1, "learning_rate": 3e-4}
        made = lesson(open_model("emoji-flow"), task, **options)
    else:
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


def test_the_edit_is_the_average_of_what_was_trained(model: Model) -> None:
    moved = [
        sum(float(delta.norm()) for delta in Withstand(**FEW | OWN, decay=decay)(model, STYLE).deltas.values())
        for decay in (0.0, 0.5, 0.99)
    ]
    assert moved[0] > moved[1] > moved[2] > 0


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_a_model_that_t5_reads_for_is_refused_with_what_can_be_used(family_model: Opener, family: str) -> None:
    with pytest.raises(BadModel, match=r"^withstand .* reads prompts by T5 .*use redirect or distil") as told:
        Withstand(**FEW)(family_model(family), STYLE)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "options", [{"eta": -1.0}, {"keep_weight": -1.0}, {"pool": 0}, {"tokens": 0}, {"search_rate": 0.0}, {"life": 0}]
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        Withstand(**options)
