"""Priors: what they count, what they say of themselves, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from erase.errors import BadWeights, ModelMismatch, PickleRefused
from erase.methods.closed_form.encoder_probe import EncoderProbe
from erase.methods.closed_form.prior import build_prior, held, load_prior
from erase.models import Model, open_model
from tests.tiny import tiny_stable_diffusion

CAPTIONS = ["a cat", "a dog in the car", "a cat"]


def test_it_is_the_sum_over_every_token_of_every_caption_once(model: Model) -> None:
    prior = build_prior(model, CAPTIONS)
    states = model.encode(["a cat", "a dog in the car"]).states.double()
    expected = sum(torch.outer(state, state) for prompt in states for state in prompt)
    torch.testing.assert_close(prior.gram, expected)
    torch.testing.assert_close(prior.mean, expected / 32)
    assert (prior.source.captions, prior.source.tokens) == (2, 32)


def test_saving_and_loading_keeps_every_bit_and_says_where_it_comes_from(model: Model, tmp_path: Path) -> None:
    prior, file = build_prior(model, CAPTIONS), tmp_path / "prior.safetensors"
    prior.save(file)
    again = load_prior(file, model)
    assert torch.equal(again.gram, prior.gram)
    assert again.source == prior.source
    with safe_open(file, framework="pt") as opened:
        assert set(json.loads(opened.metadata()["erase.prior"])) == {"captions", "captions_sha256", "encoder", "tokens"}


def test_what_a_layer_reads_is_counted_if_asked_and_kept_in_the_file(model: Model, tmp_path: Path) -> None:
    captions = [f"a cat {number}" for number in range(70)]  # more than are encoded at once
    prior, file = build_prior(model, captions, layer=0), tmp_path / "prior.safetensors"
    prior.save(file)
    again, (name,) = load_prior(file, model), prior.inner
    assert name == "encoder.layers.0.mlp.fc2.weight"
    assert torch.equal(again.read_by(name), prior.inner[name])
    rows = EncoderProbe.of(model, 0).inputs(captions)
    torch.testing.assert_close(prior.inner[name], rows.T @ rows / len(rows))


def test_another_text_encoders_prior_is_refused(model: Model, tmp_path: Path) -> None:
    other = open_model(tiny_stable_diffusion(tmp_path / "other", seed=1))
    build_prior(other, CAPTIONS).save(tmp_path / "prior.safetensors")
    with pytest.raises(ModelMismatch, match="was built for the text encoder"):
        load_prior(tmp_path / "prior.safetensors", model)


def test_what_is_no_prior_is_refused_in_one_line(model: Model, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadWeights, match="is no prior"):
        load_prior(tmp_path / "broken.safetensors", model)
    with pytest.raises(BadWeights, match="does not exist"):
        load_prior(tmp_path / "none.safetensors", model)
    with pytest.raises(PickleRefused, match="may run code"):
        load_prior(tmp_path / "stats.npz", model)
    with pytest.raises(BadWeights, match="no caption"):
        build_prior(model, [])


def test_it_counts_as_so_many_kept_states_beside_the_keeps(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "prior.safetensors"
    build_prior(model, CAPTIONS).save(file)
    kept = model.encode(["a car"]).states[0].double()
    prior = load_prior(file, model)
    both = held(model, ["a car"], preserve_scale=2.0, prior=prior, prior_scale=3.0)["tokens"]
    torch.testing.assert_close(both, 2 * kept.T @ kept + 3 * prior.mean)
