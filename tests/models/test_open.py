"""A model's family is found in its files, and what contradicts itself is refused by what was found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from erase.errors import BadModel, CannotEdit
from erase.models import open_model
from erase.models.open import family_of
from erase.run.options import check_can_edit
from tests.families import Opener

# cross_attention_dim, use_linear_projection, addition_embed_type of the published UNets.
PUBLISHED = {
    "stable-diffusion": ("StableDiffusionPipeline", {"cross_attention_dim": 768}),
    "stable-diffusion-2": ("StableDiffusionPipeline", {"cross_attention_dim": 1024, "use_linear_projection": True}),
    "stable-diffusion-xl": (
        "StableDiffusionXLPipeline",
        {"cross_attention_dim": 2048, "use_linear_projection": True, "addition_embed_type": "text_time"},
    ),
    "stable-diffusion-3": ("StableDiffusion3Pipeline", {"joint_attention_dim": 4096}),
    "flux": ("FluxPipeline", {"joint_attention_dim": 4096}),
}


def edited_json(file: Path, **change: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")


@pytest.fixture
def copy_of(family_model: Opener, tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: Path(shutil.copytree(family_model(family).path, tmp_path / family))


@pytest.mark.parametrize("family", sorted(PUBLISHED))
def test_published_settings_are_recognised(family: str) -> None:
    name, config = PUBLISHED[family]
    assert family_of(name, config, path="x").family == family


def test_an_index_that_its_unet_contradicts_is_refused_with_what_was_found(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("stable-diffusion-xl")
    edited_json(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    with pytest.raises(
        BadModel, match=r"unet is that of none \(cross_attention_dim 80, .* addition_embed_type text_time"
    ):
        open_model(folder)


def test_an_xl_without_its_pooled_path_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("stable-diffusion-xl")
    edited_json(folder / "unet" / "config.json", addition_embed_type=None)
    with pytest.raises(BadModel, match="expected stable-diffusion-xl"):
        open_model(folder)


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("stable-diffusion-xl", "unet"),
        ("stable-diffusion-xl", "text_encoder_2"),
        ("stable-diffusion-3", "tokenizer_3"),
        ("flux", "transformer"),
    ],
)
def test_a_missing_part_is_named(copy_of: Callable[[str], Path], family: str, part: str) -> None:
    folder = copy_of(family)
    shutil.rmtree(folder / part)
    with pytest.raises(BadModel, match=f"has no {part} folder"):
        open_model(folder)


def test_an_unknown_pipeline_names_all_known_ones(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("flux")
    edited_json(folder / "model_index.json", _class_name="Flux2Pipeline")
    with pytest.raises(BadModel, match=r"is a Flux2Pipeline; expected one of FluxPipeline, .*StableDiffusionPipeline"):
        open_model(folder)


def test_a_damaged_config_is_told(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("flux")
    (folder / "transformer" / "config.json").write_text("[", encoding="utf-8")
    with pytest.raises(BadModel, match="not JSON"):
        open_model(folder)


def test_a_method_is_asked_for_what_it_needs_before_it_runs(family_model: Opener) -> None:
    plain, values = SimpleNamespace(), SimpleNamespace(needs=(("tokens", "value"),))
    for family in PUBLISHED:
        check_can_edit(plain, family_model(family))  # type: ignore[arg-type]
    check_can_edit(values, family_model("stable-diffusion-xl"))  # type: ignore[arg-type]
    with pytest.raises(CannotEdit, match="cannot edit stable-diffusion-3"):
        check_can_edit(values, family_model("stable-diffusion-3"))  # type: ignore[arg-type]
