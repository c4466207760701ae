"""SPEED against its paper's equation in every layer, and what its constraints promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.errors import BadOption
from erase.methods.closed_form.prior import build_prior
from erase.methods.closed_form.ridge import Factors, gram
from erase.methods.closed_form.states import Pairs
from erase.methods.speed import LEAST, SPEED, centres, free_directions, kept_moment, moved_by
from erase.models import Model
from erase.task import Target, Task
from tests.methods.formulas import WIDTH, relative, states

TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("a dog", "a car", "twemoji", "rose", "fish"))
EYE = torch.eye(WIDTH, dtype=torch.float64)


def pairs(count: int = 3) -> Pairs:
    return Pairs(states(count, 1), states(count, 2), torch.zeros(count))


def published(
    weight: torch.Tensor, given: Pairs, keeps: torch.Tensor, *, fixed: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """One layer after the update, in the paper's letters and with the sums of its moments written out."""
    count = len(given.old)
    C_t = sum(torch.outer(old, old) for old in given.old) / count
    C_a = sum(torch.outer(new, old) for old, new in zip(given.old, given.new, strict=True)) / count
    E = weight @ (C_a - C_t) @ torch.linalg.inv(EYE + C_t)
    distances = torch.stack([(E @ keep).norm() for keep in keeps])
    chosen = keeps[distances >= distances.mean()]
    assert 0 < len(chosen) < len(keeps)
    _, _, right = torch.linalg.svd(weight)
    P_0 = torch.outer(right[-1], right[-1])
    copies = [keep + (numbers[number] * right[-1]) @ P_0 for numbers in noise for number, keep in enumerate(chosen)]
    near = [copy for copy in copies if (E @ copy).norm() > distances.mean()]
    assert bool(near) == bool(copies)
    moment = sum(torch.outer(keep, keep) for keep in [*chosen, *near]) / (len(chosen) + len(near))
    U, S, _ = torch.linalg.svd(moment)
    free = 0.1 * S.mean() > S
    P = U[:, free] @ U[:, free].T
    M, K = torch.linalg.inv(C_t @ P + 0.7 * EYE), fixed.T
    inner = torch.linalg.inv(K.T @ P @ M @ K)
    return weight + weight @ (C_a - C_t) @ P @ (EYE - M @ K @ inner @ K.T @ P) @ M


def drawn(count: int, keeps: int) -> torch.Tensor:
    """The noise along one direction that the method draws for each copy of each of so many keeps."""
    generator = torch.Generator().manual_seed(0)
    numbers = [torch.randn(keeps, 1, generator=generator, dtype=torch.float64)[:, 0] for _ in range(count)]
    return torch.stack(numbers) if count else torch.empty(0, keeps)


@pytest.mark.parametrize("augment", [0, 3])
@pytest.mark.parametrize("count", [3, 2 * WIDTH])
def test_every_layer_is_the_papers_equation(augment: int, count: int) -> None:
    given, keeps, fixed = pairs(count), states(14, 3), states(4, 4)
    method = SPEED(retain_scale=0.7, keeps="layer", augment=augment)
    for seed in (5, 6):  # a square weight sees every direction, one of them least
        weight = states(WIDTH, seed)
        seen = gram(weight)
        distances = moved_by(keeps, given, seen=seen)
        chosen = int((distances >= distances.mean()).sum())
        moment = kept_moment(keeps, given, seen=seen, augment=augment)
        up, down = method.erase(given, moment, fixed=fixed)
        assert up.shape[1] <= min(count, WIDTH)
        noise = drawn(augment, chosen)
        # The sign of the direction is free in both, so both signs of the noise are tried.
        expected = [published(weight, given, keeps, fixed=fixed, noise=sign * noise) for sign in (1, -1)]
        assert min(relative(weight, one) for one in expected) > 1e-2
        assert min(relative(weight + weight @ up @ down, one) for one in expected) < 1e-6


def test_fixed_states_and_kept_ones_do_not_move_but_the_targets_do() -> None:
    given, keeps, fixed = pairs(), states(10, 3), states(4, 4)
    up, down = SPEED().erase(given, gram(keeps) / 10, fixed=fixed)
    assert (fixed @ (up @ down).T).abs().max() < 1e-9
    assert (keeps @ (up @ down).T).abs().max() < 1e-9
    assert (given.old @ (up @ down).T).norm() > 0.1 * (given.new - given.old).norm()


@pytest.mark.parametrize("count", [3, 2 * WIDTH])
@pytest.mark.parametrize("reach", [0.5, 0.9])
def test_the_scale_that_is_found_moves_the_share_that_is_asked_of_what_can_be_moved(count: int, reach: float) -> None:
    given, moment, fixed = pairs(count), gram(states(10, 3)) / 10, states(4, 4)
    way = given.new - given.old

    def left(method: SPEED) -> float:
        up, down = method.erase(given, moment, fixed=fixed)
        return float((way - given.old @ (up @ down).T).square().sum())

    basis = free_directions(moment, 0.1)
    largest = float(torch.linalg.eigvalsh(gram(given.old @ basis) / count)[-1])
    least, whole = left(SPEED(retain_scale=LEAST * largest)), float(way.square().sum())
    assert left(SPEED(reach=reach)) == pytest.approx(least + (1 - reach) * (whole - least), rel=1e-6)


def test_a_prior_is_added_to_the_keeps_second_moment(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions, given = ["a house", "two red birds"], []
    build_prior(model, captions).save(tmp_path / "prior.safetensors")
    erase = SPEED.erase

    def seen(method: SPEED, pairs: Pairs, moment: torch.Tensor, *, fixed: torch.Tensor) -> Factors:
        given.append(moment)
        return erase(method, pairs, moment, fixed=fixed)

    monkeypatch.setattr(SPEED, "erase", seen)
    options = {"prior": str(tmp_path / "prior.safetensors"), "prior_scale": 3.0}
    plain, edit = (SPEED(threshold=1.0, keeps="all", **more)(model, TASK) for more in ({}, options))  # type: ignore[arg-type]
    rows = [row for prompt in model.encode(captions).states.double() for row in prompt]
    expected = sum(torch.outer(row, row) for row in rows) / len(rows)
    assert relative(given[1] - given[0], 3 * expected) < 1e-6
    # What lies in the corpus and not in the keeps moves less, by the size that the moment gives it.
    moved = [float((expected @ one.text_maps[0].matrix().T - expected).norm()) for one in (plain, edit)]
    assert moved[1] < 0.9 * moved[0]
    empty = Task(TASK.targets)
    assert SPEED(threshold=1.0, **options)(model, empty).text_maps[0].rank  # type: ignore[arg-type]
    assert relative(given[2], 3 * expected) < 1e-6


def test_a_layer_edit_of_a_model_holds_the_start_token_in_every_layer(model: Model) -> None:
    edit = SPEED(keeps="layer", threshold=0.5)(model, TASK)
    start = model.encode([""]).states[0, 0].double()
    assert set(edit.deltas) == {site.name for site in model.sites()}
    for delta in edit.deltas.values():
        assert (delta.double() @ start).abs().max() < 1e-4 * delta.norm()


def test_keeps_that_leave_no_direction_are_an_error() -> None:
    with pytest.raises(BadOption, match="raise the threshold"):
        SPEED(threshold=1e-9).erase(pairs(), gram(states(3 * WIDTH, 3)), fixed=states(1, 4))


def test_without_keeps_every_direction_is_free() -> None:
    moment = kept_moment(states(0, 1), pairs(), seen=EYE, augment=3)
    assert free_directions(moment, 0.1).shape == (WIDTH, WIDTH)


def test_many_targets_at_once_come_as_near_as_one_does(model: Model) -> None:
    several = Task(tuple(Target(name, "object", anchor="dog") for name in ("cat", "bomb", "kitty")), keeps=("a rose",))
    for task in (TASK, several):
        names = [word for target in task.targets for word in (target.name, target.anchor)]
        states_of = model.encode(names).states[:, 1:].double()
        matrix = SPEED(reach=0.99)(model, task).text_maps[0].matrix()
        old, new = states_of[::2], states_of[1::2]
        assert (old @ matrix.T - new).norm() < 0.5 * (old - new).norm()


def test_centres_are_the_means_of_states_that_lie_together() -> None:
    places = 100 * states(3, 8)
    near = torch.cat([place + 0.01 * states(5, number) for number, place in enumerate(places)])
    found = centres(near, 3)
    assert torch.cdist(found, places).amin(1).max() < 0.1
    assert torch.cdist(places, found).amin(1).max() < 0.1
    assert len(centres(near[:2], 3)) == 2


def test_an_option_out_of_range_is_refused_by_name() -> None:
    for name in ("threshold", "retain_scale", "centres", "augment"):
        with pytest.raises(BadOption, match=name):
            SPEED(**{name: -1})
