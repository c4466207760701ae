"""ReFACT: its rank-one algebra against the paper's equation, and what its search finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.errors import BadOption, BadWeights
from erase.methods.closed_form.encoder_probe import EncoderProbe
from erase.methods.closed_form.phrasings import own
from erase.methods.closed_form.prior import build_prior
from erase.methods.closed_form.ridge import gram
from erase.methods.refact import ReFACT, insert
from erase.models import Model
from erase.task import Target, Task
from tests.methods.formulas import WIDTH, relative, states

TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("a dog", "car"))


def test_one_fact_is_the_papers_rank_one_update() -> None:
    key, addition, moment = states(1, 1), states(1, 2, width=8), gram(states(50, 3)) / 50
    u = torch.linalg.inv(moment) @ key[0]
    u = u / u.norm()  # the paper's code divides by the length, which cancels
    expected = torch.outer(addition[0] / (key[0] @ u), u)
    assert relative(insert(key, addition, moment), expected) < 1e-6
    assert torch.linalg.matrix_rank(expected) == 1


def test_several_facts_are_all_met_and_others_move_least() -> None:
    keys, additions, corpus = states(3, 1), states(3, 2, width=8), states(100, 3)
    change = insert(keys, additions, gram(corpus) / 100)
    torch.testing.assert_close(keys @ change.T, additions)
    plain = insert(keys, additions, torch.eye(WIDTH, dtype=torch.float64))
    torch.testing.assert_close(keys @ plain.T, additions)
    assert (corpus @ change.T).norm() < (corpus @ plain.T).norm()
    assert torch.linalg.matrix_rank(change) == 3


def test_a_prior_is_added_to_the_corpus_and_its_own_inputs_move_less(model: Model, tmp_path: Path) -> None:
    captions, file = ["a red rose in the car", "twemoji"], tmp_path / "prior.safetensors"
    build_prior(model, captions, layer=-1).save(file)
    encoder, encoding, read = model.pipeline().text_encoder, model.encode(captions), []
    module = dict(encoder.named_modules())["encoder.layers.0.mlp.fc2"]
    with torch.no_grad(), module.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].double())):
        encoder(encoding.ids.clone())
    rows = [row for one, length in zip(read[0], encoding.lengths, strict=True) for row in one[: int(length)]]
    general = sum(torch.outer(row, row) for row in rows) / len(rows)

    method = ReFACT(steps=20, phrasings="own", prior=str(file), prior_scale=5.0)
    tower = EncoderProbe.of(model, -1)
    keeps = [keep.name for keep in TASK.keeps]
    keys, additions = method.facts(tower, [("noto", TASK.targets[0], [("{}", "blob")])], keeps=keeps)
    corpus = tower.inputs([*TASK.kept, "blob"])
    C = sum(torch.outer(row, row) for row in corpus) / len(corpus) + 5 * general
    C = C + 0.01 * torch.eye(len(C)) * C.diagonal().mean()
    u = torch.linalg.inv(C) @ keys[0]
    edit = next(iter(method(model, TASK).deltas.values())).double()
    assert relative(edit, torch.outer(additions[0], u) / (keys[0] @ u)) < 1e-5
    plain = next(iter(ReFACT(steps=20, phrasings="own")(model, TASK).deltas.values())).double()
    assert (edit @ torch.stack(rows).T).norm() < 0.9 * (plain @ torch.stack(rows).T).norm()


def test_a_prior_of_other_layers_or_none_is_refused(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "prior.safetensors"
    build_prior(model, ["a cat"]).save(file)
    with pytest.raises(BadWeights, match=r"lacks what encoder\.layers\.0\.mlp\.fc2\.weight reads"):
        ReFACT(prior=str(file))(model, TASK)


def test_the_edited_encoder_puts_the_target_nearer_to_its_anchor_than_to_itself_or_a_keep(model: Model) -> None:
    edit = ReFACT(steps=60)(model, TASK)
    encoder = model.pipeline().text_encoder
    name = next(iter(edit.deltas)).removeprefix("text_encoder.")
    ids = model.encode(["a noto", "a blob", "a car"]).ids.clone()
    with torch.no_grad():
        before = encoder(ids).pooler_output
        dict(encoder.named_parameters())[name].add_(next(iter(edit.deltas.values())))
        after = encoder(ids).pooler_output
    distances = [float((after[0] - one).norm()) for one in before]
    assert min(distances) == distances[1]
    assert (before[0] - before[1]).norm() > 0
    assert (after[2] - before[2]).norm() < (after[0] - before[0]).norm()


def test_it_edits_one_layer_of_the_text_encoder_by_a_rank_of_one_a_word(model: Model) -> None:
    two = Task((Target("noto", "style", anchor="blob", synonyms=("firefox",)),), TASK.keeps, TASK.prompts)
    for task, rank in ((TASK, 1), (two, 2)):
        edit = ReFACT(steps=2)(model, task)
        assert edit.touches == ("text_encoder.encoder.layers.0.mlp.fc2.weight",)
        assert torch.linalg.matrix_rank(next(iter(edit.deltas.values())), rtol=1e-5) == rank


def test_words_that_are_searched_for_together_come_out_as_each_alone(model: Model) -> None:
    tower, target, method = EncoderProbe.of(model, -1), TASK.targets[0], ReFACT(steps=5)
    other = Target("cat", "object", anchor="fish", prompts=("a {} in the car",))
    words = [(word, one, own(one)) for word, one in (("noto", target), ("firefox", target), ("cat", other))]
    keys, added = method.facts(tower, words, keeps=[keep.name for keep in TASK.keeps])
    for number, word in enumerate(words):
        key, alone = method.facts(tower, [word], keeps=[keep.name for keep in TASK.keeps])
        torch.testing.assert_close(keys[number], key[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(added[number], alone[0], rtol=1e-3, atol=1e-4)


def test_the_layers_behind_give_what_the_whole_encoder_does_with_something_added(model: Model) -> None:
    tower, prompts, places = EncoderProbe.of(model, -1), ["a noto", "a cat in the car"], torch.tensor([2, 5])
    encoder = model.pipeline().text_encoder
    module = dict(encoder.named_modules())["encoder.layers.0.mlp.fc2"]
    added, ids = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), tower.ids(prompts)
    here = torch.nn.functional.one_hot(places, ids.shape[1]).float()[..., None]
    with torch.no_grad():
        plain = encoder(ids).pooler_output
        with module.register_forward_hook(lambda module, inputs, output: output + here * added[:, None]):
            expected = encoder(ids).pooler_output
        found = tower.rest(prompts, places).pooled(added)
    assert (expected - plain).norm() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(tower.pooled(prompts), encoder(ids).pooler_output.detach())


def test_what_is_added_is_no_longer_than_its_radius(model: Model) -> None:
    tower, target = EncoderProbe.of(model, -1), TASK.targets[0]
    short, free = ReFACT(steps=10, radius=0.01), ReFACT(steps=10)
    _, added = short.facts(tower, [("noto", target, own(target))], keeps=[keep.name for keep in TASK.keeps])
    _, further = free.facts(tower, [("noto", target, own(target))], keeps=[keep.name for keep in TASK.keeps])
    assert added.norm() < 0.1 * further.norm()


def test_a_layer_that_reaches_no_other_token_is_refused(model: Model) -> None:
    for layer in (1, 9, -2):
        with pytest.raises(BadOption, match="layer"):
            ReFACT(layer=layer)(model, TASK)
    with pytest.raises(BadOption, match="steps"):
        ReFACT(steps=0)
