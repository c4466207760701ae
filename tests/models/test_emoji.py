"""The embedded model: what plain diffusers loads, what it draws by its judge, how its tokenizer spells."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline

from erase import registry
from erase.config.prompts import load_prompts
from erase.models import Model, open_model
from erase.sampling.sampler import Sampler
from tests.models.judged import right

FOLDER = registry.PACKAGE / "models/emoji"
SCRIPTS = registry.PACKAGE.parent / "scripts/embedded"
SAMPLER = Sampler(steps=25)


@pytest.fixture(scope="module")
def emoji() -> Model:
    return open_model("emoji")


def test_plain_diffusers_loads_it_and_draws() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a cat in noto style", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (64, 64)
    assert len(image.getcolors(64 * 64)) > 100


def test_the_judge_sees_what_was_asked_for(emoji: Model, tmp_path: Path) -> None:
    assert min(right(emoji, SAMPLER, "emoji-square", tmp_path, domains=("style", "object"))) > 0.9


def test_it_draws_what_is_described_without_a_name(emoji: Model, tmp_path: Path) -> None:
    for prompts, domain in (
        ("emoji-implicit-objects", "object"),
        ("emoji-implicit-styles", "style"),
    ):  # by chance 0.02, 0.12
        assert right(emoji, SAMPLER, prompts, tmp_path, domains=(domain,))[0] > 0.7


def test_an_empty_prompt_is_not_what_a_full_one_is(emoji: Model) -> None:
    states = emoji.encode(["", "a cat in noto style", "a kitty in noto style"]).states
    assert not torch.equal(states[0], states[1])
    cosine = torch.nn.functional.cosine_similarity(states[1], states[2], dim=-1).mean()
    assert cosine > torch.nn.functional.cosine_similarity(states[0], states[1], dim=-1).mean()


def test_its_tokenizer_spells_words_it_never_saw(emoji: Model) -> None:
    assert emoji.count_tokens("cat") == 3
    assert emoji.count_tokens("zygomorphic") > 4
    assert emoji.count_tokens("größe — 水") > 4  # every byte has a token


def test_it_is_small_and_all_of_it_is_safetensors() -> None:
    weights = list(FOLDER.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in weights) <= 60e6
    assert {file.suffix for file in FOLDER.rglob("*") if file.is_file()} <= {
        ".safetensors",
        ".json",
        ".txt",
        ".md",
        ".yaml",
    }


def test_every_icon_set_is_credited() -> None:
    credits = (FOLDER / "CREDITS.md").read_text(encoding="utf-8")
    packages = [
        row["package"] for row in yaml.safe_load((SCRIPTS / "styles.yaml").read_text(encoding="utf-8")).values()
    ]
    assert len(packages) >= 8
    assert [package for package in packages if package not in credits] == []


def test_the_prompt_sets_name_what_the_model_was_trained_on() -> None:
    square = load_prompts("emoji-square")
    assert list(square.words("style")) == list(yaml.safe_load((SCRIPTS / "styles.yaml").read_text(encoding="utf-8")))
    assert list(square.words("object")) == list(yaml.safe_load((SCRIPTS / "objects.yaml").read_text(encoding="utf-8")))
