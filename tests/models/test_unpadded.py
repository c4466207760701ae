"""Prompts encoded without padding: the same states at their own tokens, in a fraction of the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.evidence.apart import shared_by_state
from erase.methods.closed_form.prior import held
from erase.methods.closed_form.states import Tokens, last_states, own_states, paired_states
from erase.methods.dp import DP
from erase.methods.uce import UCE
from erase.models import Encoding, Model, open_model
from erase.task import Keep, Target, Task
from tests.tiny_families import tiny_sdxl

NEAR = 3e-6
PROMPTS = ["a cat in noto style", "Émile Noël", "", "a", "a picture of a dog", "cat", "zygote !"]
PAIRS = [("Van Gogh", "a dog"), ("a picture of a cat", "dog"), ("Émile Noël", "a rosé")]


def read_alike(padded: Encoding, cut: Encoding) -> None:
    """The own tokens' states and the pooled ones are the same; nothing was computed behind causal ones."""
    for before, after in zip(padded.parts, cut.parts, strict=True):
        assert torch.equal(before.ids, after.ids)
        assert torch.equal(before.lengths, after.lengths)
        torch.testing.assert_close(after.states[after.mask], before.states[before.mask], rtol=0, atol=NEAR)
        behind = after.states[~after.mask]
        if after.causal:
            assert behind[:, 0].isnan().all()
        else:
            assert torch.equal(behind, before.states[~before.mask])
    assert (padded.pooled is None) == (cut.pooled is None)
    if padded.pooled is not None and cut.pooled is not None:
        torch.testing.assert_close(cut.pooled, padded.pooled, rtol=0, atol=NEAR)


def test_states_of_own_tokens_and_pooled_ones_are_those_with_padding(each_model: Model) -> None:
    read_alike(each_model.encode(PROMPTS), each_model.encode(PROMPTS, padding=False))


def test_states_of_the_embedded_model_are_those_with_padding() -> None:
    emoji = open_model("emoji")
    prompts = ["a cat in noto style", "an icon of a fire engine", "", "Émile Noël painting a beer mug, twemoji style"]
    read_alike(emoji.encode(prompts), emoji.encode(prompts, padding=False))


def test_a_prompt_is_run_at_its_own_length(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    network = model.encoders[0].network
    forward = network.forward

    def counted(ids: Tensor, *inputs: Any, **named: Any) -> Any:
        seen.append((ids.shape[0], ids.shape[1]))
        return forward(ids, *inputs, **named)

    monkeypatch.setattr(network, "forward", counted)
    model.encode(["cat", "a cat", "dog", ""], padding=False)
    assert seen == [(1, 2), (2, 3), (1, 4)]


def nan_if_padding_is_read(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which of the calls of `encode` from now on are with padding."""
    calls: list[bool] = []
    encode = Model.encode

    def watched(model: Model, prompts: Sequence[str], **named: Any) -> Encoding:
        calls.append(named.get("padding", True))
        return encode(model, prompts, **named)

    monkeypatch.setattr(Model, "encode", watched)
    return calls


@pytest.mark.parametrize("tokens", ["last", "aligned", "all", "whole", "context"])
def test_padding_is_encoded_where_it_is_edited_and_only_there(
    each_model: Model, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = nan_if_padding_is_read(monkeypatch)
    for pairs in paired_states(each_model, PAIRS, tokens).values():
        assert pairs.old.isfinite().all()
        assert pairs.new.isfinite().all()
    assert calls == [tokens != "last"]


def test_the_empty_anchor_is_the_empty_prompts_padding(each_model: Model) -> None:
    pairs = paired_states(each_model, [("a cat", "")], "last")["tokens"]
    encoding = each_model.encode(["a cat", ""])
    last = [int(part.last[0]) for part in encoding.parts]
    wanted = torch.stack([part.states[1, place] for part, place in zip(encoding.parts, last, strict=True)])
    torch.testing.assert_close(pairs.new, wanted, rtol=0, atol=0)


def test_keeps_of_last_words_are_those_with_padding(each_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = last_states(each_model, PROMPTS)
    encoding = each_model.encode(PROMPTS)
    rows = torch.arange(len(PROMPTS))
    wanted = torch.cat([part.states[rows, part.last.clamp(min=0)] for part in encoding.parts])
    torch.testing.assert_close(ours["tokens"], wanted, rtol=0, atol=NEAR)
    calls = nan_if_padding_is_read(monkeypatch)
    own_states(each_model, PROMPTS)
    held(each_model, PROMPTS, preserve_scale=1.0, keep_tokens="last")
    assert calls == [True, False]


@pytest.mark.parametrize("method", [DP(**DP.paper), UCE(**UCE.paper)], ids=["dp", "uce"])
def test_an_edit_of_last_words_needs_no_padding_but_the_empty_prompts(
    model: Model, method: DP | UCE, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task((Target("Van Gogh", "style", anchor="a dog"),), (Keep("blob", "style"), Keep("firefox", "style")))
    calls = nan_if_padding_is_read(monkeypatch)
    edit = method(model, task)
    assert calls.count(True) <= 1
    assert all(one.up.isfinite().all() and one.down.isfinite().all() for one in edit.text_maps)
    monkeypatch.setattr("erase.models.model.unpadded", lambda encoders, prompts: list(encoders))
    whole = method(model, task)
    for one, other in zip(edit.text_maps, whole.text_maps, strict=True):
        torch.testing.assert_close(one.up @ one.down, other.up @ other.down, rtol=0, atol=1e-4)


def test_encoders_whose_words_lie_apart_are_run_with_padding(tmp_path: Path) -> None:
    """As where a word of several vectors was added to one of two tokenizers alone."""
    pipe = tiny_sdxl()
    pipe.tokenizer.add_tokens(["<relic>", "<relic>_1", "<relic>_2"])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    pipe.save_pretrained(tmp_path / "model")
    model = open_model(tmp_path / "model")
    assert model.encode(["a <relic>"], padding=False).states.isfinite().all()
    assert model.encode(["a cat"], padding=False).states.isnan().any()


def test_the_network_is_loaded_once_for_both(tmp_path: Path) -> None:
    tiny_sdxl().save_pretrained(tmp_path / "model")
    model = open_model(tmp_path / "model")
    model.encode(["a cat"], padding=False)
    held_now = [one.network for one in model.encoders]
    model.encode(["a dog"])
    model.encode(["a dog"], padding=False)
    assert [one.network for one in model.encoders] == held_now


def test_prompts_near_others_are_found_by_states_without_padding(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = nan_if_padding_is_read(monkeypatch)
    found = list(shared_by_state(["a cat", "a dog"], ["a cat", "fish"], model))
    assert [prompt for prompt, _, _ in found] == ["a cat"]
    assert calls == [False, False]
