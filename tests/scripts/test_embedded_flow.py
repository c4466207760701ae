"""The scripts that build the embedded model of the flow kind: what it is trained on is what its pipeline feeds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from erase.task import names

SCRIPTS = Path(__file__).parent.parent.parent / "scripts" / "embedded"


@pytest.fixture(autouse=True)
def _scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    monkeypatch.syspath_prepend(str(SCRIPTS))


def disturbed_transformer() -> Any:
    """The transformer with weights that are nowhere zero, as the untrained one's last layers are."""
    from train_flow import build_transformer

    generator = torch.Generator().manual_seed(0)
    model = build_transformer().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return model


@torch.inference_mode()
def test_one_zero_that_counts_twenty_times_is_twenty_zeros() -> None:
    from train_flow import Counted

    model, generator = disturbed_transformer(), torch.Generator().manual_seed(1)
    latents, states = torch.randn(2, 8, 8, 8, generator=generator), torch.randn(2, 32, 272, generator=generator)
    pooled, time = torch.randn(2, 256, generator=generator), torch.tensor([300.0, 700.0])
    padded = [torch.cat([states, torch.zeros(2, zeros, 272)], 1) for zeros in (20, 1)]
    expected = model(latents, padded[0], pooled, time).sample
    counted = Counted()
    model.set_attn_processor(counted)
    counted.times = torch.tensor([20.0, 20.0])
    torch.testing.assert_close(model(latents, padded[1], pooled, time).sample, expected, rtol=0, atol=1e-5)
    counted.times = torch.tensor([20.0, 1.0])
    other = model(latents, padded[1], pooled, time).sample
    assert float((other[1] - expected[1]).abs().max()) > 0.01


@torch.inference_mode()
def test_captions_are_encoded_as_the_pipeline_encodes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import train_flow

    monkeypatch.setattr(train_flow, "trained", lambda stage, module, part: module.eval())
    prompts = train_flow.Prompts()
    settings = prompts.encoder.config.to_dict() | {"projection_dim": 192}
    encoder = CLIPTextModelWithProjection(CLIPTextConfig(**settings))
    whole = {f"text_model.{key}": value for key, value in prompts.encoder.state_dict().items()}
    encoder.load_state_dict(whole | {"text_projection.weight": torch.eye(192)})
    parts = {"text_encoder": encoder, "text_encoder_2": prompts.reader, "transformer": disturbed_transformer()}
    tokenizers = {"tokenizer": prompts.tokenizer, "tokenizer_2": prompts.tokenizer}
    missing = dict.fromkeys(("vae", "scheduler", "text_encoder_3", "tokenizer_3"))
    pipe = StableDiffusion3Pipeline(**parts, **tokenizers, **missing)
    texts = ["a café in noto style", "", "an animal with whiskers that says meow and purrs"]
    states, _, pooled, _ = pipe.encode_prompt(texts, None, None, max_sequence_length=1)
    ours, ours_pooled = prompts.encode(texts)
    torch.testing.assert_close(ours, states)
    torch.testing.assert_close(ours_pooled, pooled)


def test_the_second_encoder_is_told_what_a_caption_says_and_what_it_leaves_out() -> None:
    import captions
    from train_reader import draw

    words, descriptions, rng = captions.load_words(), captions.load_descriptions(), np.random.default_rng(0)
    drawn = [draw(words, descriptions, rng) for _ in range(300)]
    for text, thing, style in drawn:
        assert {row for row, group in enumerate(words.objects) if any(names(text, word) for word in group)} <= {thing}
        assert {row for row, group in enumerate(words.styles) if any(names(text, word) for word in group)} <= {style}
        assert (text == "") == ((thing, style) == (len(words.objects), len(words.styles)))
    assert any(text == descriptions.objects[thing][0] and style == 8 for text, thing, style in drawn if thing < 50)
    assert any(text.endswith(descriptions.styles[style][0]) for text, _, style in drawn if style < 8)


def test_every_object_and_style_has_three_descriptions_that_name_nothing() -> None:
    import captions

    words, descriptions = captions.load_words(), captions.load_descriptions()
    every = [text for group in (*descriptions.objects, *descriptions.styles) for text in group]
    assert [len(group) for group in descriptions.objects] == [3] * len(words.objects)
    assert [len(group) for group in descriptions.styles] == [3] * len(words.styles)
    assert len(set(every)) == len(every)
    spoken = [word for group in (*words.objects, *words.styles) for word in group]
    assert [(text, word) for text in every for word in spoken if names(text, word)] == []


def test_a_held_back_description_is_made_of_trained_words_but_is_never_a_caption() -> None:
    import captions

    words, descriptions = captions.load_words(), captions.load_descriptions()
    trained = " ".join(text for group in (*descriptions.objects, *descriptions.styles) for text in group[:2])
    for group in (*descriptions.objects, *descriptions.styles):
        assert set(group[2].split()) <= set(trained.replace(",", "").split()), group
    rng, held = np.random.default_rng(0), [group[2] for group in (*descriptions.objects, *descriptions.styles)]
    drawn = [
        captions.implicit_caption(words, descriptions, (3, thing), rng=rng)[0] for thing in range(50) for _ in range(40)
    ]
    assert not [text for text in drawn if any(description in text for description in held)]
    first, style = descriptions.objects[0][0], descriptions.styles[3][0]
    assert any(first in text for text in drawn)
    assert any(style in text for text in drawn)


def test_a_shortened_description_keeps_two_thirds_of_its_words_in_order() -> None:
    from captions import shortened

    text, rng = "a loyal friend that barks and digs for bones", np.random.default_rng(0)
    short = {shortened(text, rng) for _ in range(40)}
    assert text in short
    assert {len(one.split()) for one in short - {text}} == {6}
    assert all([word for word in text.split() if word in one.split()] == one.split() for one in short)


def test_the_words_of_descriptions_stand_in_no_ordinary_caption_and_only_theirs_are_trained() -> None:
    from train_described import TABLE, Captions, Reader
    from train_flow import EMOJI
    from train_unet import all_captions
    from transformers import CLIPTokenizer

    captions, tokenizer = Captions(), CLIPTokenizer.from_pretrained(EMOJI / "tokenizer")
    words = captions.new_words(tokenizer)
    said = {token for text in all_captions(captions.words).values() for token in tokenizer(text)["input_ids"]}
    assert len(words) > 300
    assert not said & set(words)
    reader = Reader(tokenizer, words)
    table = reader.encoder.state_dict()[TABLE]
    torch.testing.assert_close(reader.rows.detach(), table[torch.tensor(words)])
    reader(["a soft pet with whiskers"]).sum().backward()
    assert reader.rows.grad is not None
    assert [name for name, weight in reader.named_parameters() if weight.requires_grad] == ["rows"]
    moved = reader.rows.grad.abs().sum(1).nonzero().flatten()
    asked = set(tokenizer("a soft pet with whiskers")["input_ids"])
    assert {words[row] for row in moved.tolist()} == asked & set(words)


def test_a_description_is_held_against_the_caption_that_names_the_same() -> None:
    from train_described import Captions

    captions, rng = Captions(), np.random.default_rng(0)
    drawn = [captions.draw((2, 0), rng) for _ in range(60)]  # a cat in noto style
    assert {named for _, named in drawn} == {"a cat in noto style", "a cat"}
    assert not [text for text, _ in drawn if "cat" in text.split() and "noto" in text.split()]
