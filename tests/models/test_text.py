"""Text encoders: which states are read of them, and their memory."""

from __future__ import annotations

from pathlib import Path

import torch

from erase.models import open_model
from erase.models.text import Text, TextEncoder
from tests.tiny_families import tiny_clip_encoder, tiny_sdxl


class Given:
    """A tokenizer and a text encoder that are there."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        self.encoder = encoder

    def tokenizer(self, text: Text) -> object:
        return tiny_sdxl().tokenizer

    def text_encoder(self, text: Text) -> torch.nn.Module:
        return self.encoder


def test_penultimate_states_are_those_of_the_layer_before_the_last() -> None:
    module = tiny_clip_encoder(32, projection=32, layers=4).eval()
    text = Text("text_encoder", "tokenizer", "CLIPTextModelWithProjection", states="penultimate")
    encoder = TextEncoder(text, Given(module))
    stretch, pooled = encoder.run(["a cat", "a house in noto style"])
    with torch.no_grad():
        every = module(stretch.ids, output_hidden_states=True)
    assert torch.equal(stretch.states, every.hidden_states[-2])
    assert not torch.equal(stretch.states, every.hidden_states[-1])
    assert torch.equal(pooled, every.text_embeds)
    assert not any(one._forward_pre_hooks for one in module.modules())


def test_an_encoder_that_was_let_go_is_loaded_anew(tmp_path: Path) -> None:
    tiny_sdxl().save_pretrained(tmp_path / "model")
    model = open_model(tmp_path / "model")
    before = model.encode(["a cat"])
    held = model.encoders[1]._encoder
    model.free_encoders()
    after = model.encode(["a cat"])
    assert model.encoders[1]._encoder is not held
    assert torch.equal(after.states, before.states)
    assert after.pooled is not None
    assert before.pooled is not None
    assert torch.equal(after.pooled, before.pooled)
