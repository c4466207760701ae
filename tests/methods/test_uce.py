"""UCE against its paper's equation, and what its options promise."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods import uce
from erase.methods.closed_form.states import Pairs, paired_states
from erase.methods.uce import removed
from erase.models import Model
from erase.run.options import method_with
from erase.task import Target, Task
from tests.methods.closed_form.test_ridge import layer, published

UCE: Any = partial(uce.UCE, phrasings="own")  # on the task's own prompts alone
STYLE = Task(
    (Target("noto", "style", anchor="blob", prompts=("a cat in {} style", "{} style")),),
    keeps=("a dog in twemoji style", "a car"),
)


def test_last_token_edit_is_the_papers_equation_in_every_layer(model: Model) -> None:
    edit = UCE(tokens="last", protect="none", erase_scale=1.5, preserve_scale=0.7, lamb=0.3)(model, STYLE)
    encoding = model.encode(["a cat in noto style", "noto style", "a cat in blob style", "blob style", *STYLE.kept])
    states, last = encoding.states.double(), (encoding.lengths - 2).tolist()
    old = torch.stack([states[row, last[row]] for row in (0, 1)])
    new = torch.stack([states[row, last[row]] for row in (2, 3)])
    keep = states[4:].flatten(0, 1)
    assert len(model.sites()) == 8
    for site in model.sites():
        weight = model.weight(site.name)
        expected = published(weight.double(), old, new, keep, erase=1.5, hold=0.7, lamb=0.3)
        changed = edit.changed_tensor(site.name, weight).double()
        assert (expected - weight.double()).norm() > 1e-2 * weight.double().norm()
        assert (changed - expected).norm() < 1e-5 * expected.norm()


def test_float64_factors_meet_the_equation_to_a_millionth(model: Model) -> None:
    edit = UCE(tokens="last", protect="none")(model, STYLE)
    encoding = model.encode(["a cat in noto style", "noto style", "a cat in blob style", "blob style", *STYLE.kept])
    states, last = encoding.states.double(), (encoding.lengths - 2).tolist()
    picked = [states[row, last[row]] for row in range(4)]
    weight = model.weight(model.sites()[0].name).double()
    keep = states[4:].flatten(0, 1)
    expected = published(weight, torch.stack(picked[:2]), torch.stack(picked[2:]), keep, erase=1.0, hold=1.0, lamb=0.5)
    relative = (weight @ edit.text_maps[0].matrix() - expected).norm() / expected.norm()
    assert relative < 1e-6


def test_the_papers_preset_is_todays_official_code_in_every_layer(model: Model) -> None:
    """Bare last tokens on both sides, targets and keeps, and no start token or empty prompt beside them."""
    edit = method_with("uce", {"preset": "paper"})(model, STYLE)
    encoding = model.encode(["a cat in noto style", "noto style", "a cat in blob style", "blob style", *STYLE.kept])
    last = (encoding.lengths - 2).tolist()
    picked = torch.stack([encoding.states[row, place] for row, place in enumerate(last)]).double()
    for site in model.sites():
        weight = model.weight(site.name).double()
        expected = published(weight, picked[:2], picked[2:4], picked[4:], erase=1.0, hold=1.0, lamb=0.5)
        assert (expected - weight).norm() > 1e-2 * weight.norm()
        assert (weight @ edit.text_maps[0].matrix() - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("tokens", ["last", "aligned", "all"])
def test_targets_states_come_nearer_to_their_anchors(model: Model, tokens: str) -> None:
    matrix = UCE(tokens=tokens, preserve_scale=0.0, lamb=1e-4)(model, STYLE).text_maps[0].matrix()
    old, new = model.encode(["a cat in noto style", "a cat in blob style"]).states.double()
    last = 5 if tokens == "last" else -1
    assert (old[last] @ matrix.T - new[last]).norm() < 0.5 * (old[last] - new[last]).norm()


def test_more_tokens_give_more_edited_states(model: Model) -> None:
    ranks = [UCE(tokens=tokens)(model, STYLE).rank for tokens in ("last", "aligned", "all")]
    assert ranks[0] == 2
    assert ranks[0] < ranks[1] < ranks[2]


def test_start_token_and_empty_prompt_do_not_move_when_protected(model: Model) -> None:
    empty = model.encode([""]).states[0].double()
    protected = UCE()(model, STYLE).text_maps[0].matrix()
    free = UCE(protect="none")(model, STYLE).text_maps[0].matrix()
    assert (empty @ protected.T - empty).abs().max() < 1e-6
    assert (empty @ free.T - empty).abs().max() > 1e-3


def test_keeps_move_less_than_without_them(model: Model) -> None:
    kept = model.encode(["a dog in twemoji style"]).states[0].double()
    moved = {}
    for scale in (0.0, 10.0):
        matrix = UCE(preserve_scale=scale)(model, STYLE).text_maps[0].matrix()
        moved[scale] = (kept @ matrix.T - kept).norm()
    assert moved[10.0] < 0.5 * moved[0.0]


def test_an_empty_anchor_maps_to_the_empty_prompt(model: Model) -> None:
    task = Task((Target("bomb", "unsafe", prompts=("a {}",)),))
    matrix = UCE(preserve_scale=0.0, lamb=1e-6, protect="none")(model, task).text_maps[0].matrix()
    bomb, empty = model.encode(["a bomb", ""]).states.double()
    for position in (2, 3, 9):
        left = bomb[position] @ matrix.T - empty[position]
        assert left.norm() < 0.01 * (bomb[position] - empty[position]).norm()


def test_several_targets_and_synonyms_are_edited_at_once(model: Model) -> None:
    one = UCE(tokens="last")(model, Task((Target("cat", "object", anchor="dog"),)))
    more = Task((Target("cat", "object", anchor="dog", synonyms=("kitty",)), Target("car", "object", anchor="fish")))
    assert one.rank == 1
    assert UCE(tokens="last")(model, more).rank == 3


def test_technique_tensor_is_the_first_official_update_in_every_layer(model: Model) -> None:
    options = {"tokens": "last", "protect": "none", "erase_scale": 1.5, "preserve_scale": 0.7, "lamb": 0.3}
    edit = UCE(technique="tensor", **options)(model, STYLE)
    encoding = model.encode(["a cat in noto style", "noto style", "a cat in blob style", "blob style", *STYLE.kept])
    states, last = encoding.states.double(), (encoding.lengths - 2).tolist()
    picked = [states[row, last[row]] for row in range(4)]
    keep = states[4:].flatten(0, 1)
    assert set(edit.deltas) == {site.name for site in model.sites()}
    for name, delta in edit.deltas.items():
        weight = model.weight(name).double()
        mat1, mat2 = 0.3 * weight, 0.3 * torch.eye(weight.shape[1], dtype=torch.float64)
        for old, new in zip(picked[:2], picked[2:], strict=True):
            u = (weight @ old) / (weight @ old).norm()
            wanted = weight @ new - (u @ (weight @ new)) * u
            mat1, mat2 = mat1 + 1.5 * torch.outer(wanted, old), mat2 + 1.5 * torch.outer(old, old)
        mat1, mat2 = mat1 + 0.7 * weight @ keep.T @ keep, mat2 + 0.7 * keep.T @ keep
        expected = mat1 @ torch.linalg.inv(mat2)
        assert ((weight + delta.double()) - expected).norm() < 1e-6 * expected.norm()
        assert (delta.double()).norm() > 1e-2 * weight.norm()


def test_technique_tensor_takes_one_direction_for_all_states_of_a_prompt() -> None:
    weight, old, new = layer(8, 1), layer(5, 2), layer(5, 3)
    pairs = Pairs(old, new, torch.tensor([0, 0, 0, 1, 1]))
    found = removed(weight, pairs).T
    for block in (slice(0, 3), slice(3, 5)):
        before, after = old[block] @ weight.T, new[block] @ weight.T
        u = before / before.norm()
        torch.testing.assert_close(found[block], after - (u * after).sum() * u - before)


def test_moderation_maps_to_the_empty_prompt_whatever_the_anchor(model: Model) -> None:
    anchored = Task((Target("bomb", "unsafe", anchor="rose"),))
    bare = Task((Target("bomb", "unsafe"),))
    moderated, erased = UCE(mode="moderate")(model, anchored), UCE()(model, bare)
    assert torch.equal(moderated.text_maps[0].up, erased.text_maps[0].up)
    assert not torch.equal(UCE()(model, anchored).text_maps[0].up, erased.text_maps[0].up)


def test_aligned_tokens_end_where_the_anchors_prompt_does(model: Model) -> None:
    pairs = paired_states(model, [("cat", "a small blob")], "aligned")["tokens"]
    old, new = model.encode(["cat", "a small blob"]).states
    last = int(model.encode(["a small blob"]).lengths[0]) - 2
    assert torch.equal(pairs.old, old[1 : 16 - (last - 1)])
    assert torch.equal(pairs.new, new[last:])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"erase_scale": 0.0}, "erase_scale"),
        ({"lamb": -1.0}, "lamb"),
        ({"preserve_scale": -0.1}, "preserve_scale"),
        ({"tokens": "some"}, "tokens"),
        ({"protect": "maybe"}, "protect"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, object], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        UCE(**options)
