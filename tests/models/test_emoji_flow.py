"""The embedded model of the flow kind: laid out whole, loaded by plain diffusers, drawing what its judge sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from erase import registry
from erase.config.prompts import Row
from erase.models import Model, open_model
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler
from tests.models.judged import right

CARRIED = registry.PACKAGE / "models/emoji-flow"
FAST = Sampler(steps=16, guidance=3.0, max_sequence_length=1, batch=16)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return open_model("emoji-flow")


def test_its_folder_is_whole_and_named_after_it(flow: Model) -> None:
    assert flow.title == "emoji-flow"
    assert flow.judge_folder is not None
    borrowed = json.loads((CARRIED / "borrowed.json").read_text(encoding="utf-8"))
    assert {name: (flow.path / name).exists() for name in borrowed} == dict.fromkeys(borrowed, True)
    assert not [there for there in borrowed.values() if not (CARRIED.parent / there).exists()]
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (flow.path / weights).read_bytes() == (CARRIED.parent / "emoji" / weights).read_bytes()


def test_it_adds_less_than_eleven_megabytes_to_the_package() -> None:
    assert sum(file.stat().st_size for file in CARRIED.rglob("*") if file.is_file()) < 11e6


def test_its_first_encoder_reads_as_that_of_emoji_with_the_pooled_state_as_it_is(flow: Model) -> None:
    prompts = ["a café in noto style", "", "a cat"]
    ours, theirs = flow.encode(prompts), open_model("emoji").encode(prompts)
    assert ours.pooled is not None
    ends = theirs.states[torch.arange(3), theirs.lengths - 1]
    torch.testing.assert_close(ours.pooled[:, :192], ends)


def test_plain_diffusers_loads_it_and_draws_what_is_sampled_here(flow: Model) -> None:
    pipe = StableDiffusion3Pipeline.from_pretrained(flow.path, text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "max_sequence_length": 1}
    generator = torch.Generator().manual_seed(3)
    theirs = pipe("a cat in noto style", generator=generator, **settings).images[0]
    few = Sampler(steps=4, guidance=3.0, max_sequence_length=1, batch=1)
    ((_, ours),) = sample(flow, [Row("a cat in noto style", 3)], few)
    assert theirs.size == (64, 64)
    assert len(theirs.getcolors(64 * 64)) > 100
    assert np.abs(np.asarray(theirs, dtype=int) - np.asarray(ours, dtype=int)).max() <= 1


def test_the_judge_sees_what_was_asked_for(flow: Model, tmp_path: Path) -> None:
    assert min(right(flow, FAST, "emoji-square", tmp_path, domains=("style", "object"))) > 0.9


def test_it_draws_what_is_described_without_a_name(flow: Model, tmp_path: Path) -> None:
    for prompts, domain in (
        ("emoji-implicit-objects", "object"),
        ("emoji-implicit-styles", "style"),
    ):  # by chance 0.02, 0.12
        assert right(flow, FAST, prompts, tmp_path, domains=(domain,))[0] > 0.7
