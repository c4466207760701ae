"""Quality of what must stay: CLIP scores pair by pair, distances over all, and what a missing image does to either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from erase.config.prompts import Row
from erase.errors import ScoreFailed
from erase.evaluate.aggregate import Total
from erase.evaluate.detect import Given, Key
from erase.evaluate.metrics.distances import cmmd
from erase.evaluate.metrics.quality import Vectors, clip_encoder_of, clip_scores, set_distances
from erase.evaluate.protocol import Case, Protocol, load_protocol

CAPTIONS = ("a cat", "a dog", "a car")


def protocol(folder: Path, *scorers: str) -> Protocol:
    path = folder / "mine.yaml"
    head = {"version": "1", "description": "a test", "source": "a test", "scorers": list(scorers)}
    part = {"role": "kept", "aspect": "a", "templates": ["{word}"]}
    path.write_text(
        yaml.safe_dump(head | {"detector": {"name": "judge", "version": "1"}, "prompts": [part]}), encoding="utf-8"
    )
    return load_protocol(str(path))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    erased = Case(Row("a rose", 0), "erased", "name", "rose", caption="a rose")
    return [erased, *(Case(Row(text, 0), "kept", "rest", text, caption=text) for text in CAPTIONS)]


@pytest.fixture
def images(tmp_path: Path, cases: list[Case]) -> dict[str, dict[Key, Path]]:
    rng, found = np.random.default_rng(6), {}
    for side in ("before", "after"):
        found[side] = {(case.row.prompt, 0): tmp_path / f"{side}-{number}.png" for number, case in enumerate(cases)}
        for path in found[side].values():
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    return found


def vectors(folder: Path, paths: list[Path]) -> torch.Tensor:
    """Features by transformers alone, float64 and unnormalised."""
    pixels = [torch.tensor(np.asarray(Image.open(path)) / 127.5 - 1).permute(2, 0, 1).float() for path in paths]
    with torch.inference_mode():
        return CLIPModel.from_pretrained(folder).eval().get_image_features(torch.stack(pixels)).pooler_output.double()


Sides = dict[str, dict[Key, Path]]


def seen(asked: Protocol, cases: list[Case], images: Sides, judge: Path | None) -> tuple[Any, dict[str, Vectors]]:
    """Who looks, and the vectors of both sides, looked at in two batches."""
    eyes = clip_encoder_of(asked, cases, Given(judge=judge))
    shown = {side: list(paths.items()) for side, paths in images.items()}
    return eyes, {side: {**eyes.vectors(pairs[:2]), **eyes.vectors(pairs[2:])} for side, pairs in shown.items()}


def scored(asked: Protocol, cases: list[Case], images: Sides, judge: Path) -> dict[int, tuple[float, float]]:
    eyes, vectors = seen(asked, cases, images, judge)
    return clip_scores(asked, cases, eyes, **vectors)


def distances(asked: Protocol, cases: list[Case], images: Sides, judge: Path) -> tuple[Total, ...]:
    eyes, vectors = seen(asked, cases, images, judge)
    return set_distances(asked, eyes, **vectors)


def test_scores_are_a_hundred_cosines_of_kept_cases_alone(
    tiny_model: Path, tmp_path: Path, cases: list[Case], images: dict[str, dict[Key, Path]]
) -> None:
    folder = tiny_model / "judge/clip"
    found = scored(protocol(tmp_path, "clip"), cases, images, tiny_model / "judge")
    assert list(found) == [1, 2, 3]
    tokens = CLIPTokenizer.from_pretrained(folder)(list(CAPTIONS), padding=True, return_tensors="pt")
    with torch.inference_mode():
        texts = CLIPModel.from_pretrained(folder).eval().get_text_features(**tokens).pooler_output.double()
    for place, side in enumerate(("before", "after")):
        shown = vectors(folder, list(images[side].values())[1:])
        expected = 100 * torch.nn.functional.cosine_similarity(shown, texts)
        assert [found[number][place] for number in (1, 2, 3)] == pytest.approx(expected.tolist(), abs=1e-3)


def test_a_missing_image_scores_nought(
    tiny_model: Path, tmp_path: Path, cases: list[Case], images: dict[str, dict[Key, Path]]
) -> None:
    images["after"][("a dog", 0)].unlink()
    found = scored(protocol(tmp_path, "clip"), cases, images, tiny_model / "judge")
    assert found[2][1] == 0.0
    assert found[2][0] != 0.0


def test_distances_are_of_the_kept_images(
    tiny_model: Path, tmp_path: Path, cases: list[Case], images: dict[str, dict[Key, Path]]
) -> None:
    asked = protocol(tmp_path, "cmmd", "kid")
    totals = distances(asked, cases, images, tiny_model / "judge")
    before, after = (vectors(tiny_model / "judge/clip", list(images[side].values())[1:]) for side in images)
    assert totals[0].after == pytest.approx(cmmd(before.numpy(), after.numpy()), abs=1e-4)
    assert "to the base model's images" in totals[0].name
    assert totals[1].name.startswith("KID of CLIP vectors")


def test_a_distance_of_incomplete_sets_is_a_failed_run(
    tiny_model: Path, tmp_path: Path, cases: list[Case], images: dict[str, dict[Key, Path]]
) -> None:
    images["after"][("a dog", 0)].unlink()
    with pytest.raises(ScoreFailed, match="1 of 3 images are missing"):
        distances(protocol(tmp_path, "cmmd"), cases, images, tiny_model / "judge")


def test_what_is_not_asked_for_is_not_scored(
    tmp_path: Path, cases: list[Case], images: dict[str, dict[Key, Path]]
) -> None:
    eyes, vectors = seen(protocol(tmp_path), cases, images, None)
    assert vectors == {"before": {}, "after": {}}
    assert clip_scores(protocol(tmp_path), cases, eyes, **vectors) == {}
    assert set_distances(protocol(tmp_path), eyes, **vectors) == ()


def test_without_a_clip_it_is_said_what_to_give(tmp_path: Path, cases: list[Case]) -> None:
    with pytest.raises(ScoreFailed, match="give it as clip=PATH"):
        clip_encoder_of(protocol(tmp_path, "clip"), cases, Given())
