"""CLIP accuracy asks of each erased image whether it is nearer to the target's prompt than to the anchor's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from erase.config.prompts import Row
from erase.evaluate.judges import ImageJudge
from erase.evaluate.scores.clip_accuracy import ClipAccuracy, text_pair
from erase.task import Target, Task
from tests.evaluate.pictures import shot
from tests.evaluate.scores.test_clip import cosine

NOTO = Target("noto", "style", anchor="blob", synonyms=("firefox",))
TASK = Task((NOTO, Target("twemoji", "style", anchor="")))
SHOTS = [
    *(shot(f"n{n}", f"a {thing} in noto style", style="noto") for n, thing in enumerate(("cat", "dog", "car", "fish"))),
    *(shot(f"t{n}", f"a {thing} in twemoji style", style="twemoji") for n, thing in enumerate(("cat", "rose"))),
]


def test_an_image_counts_where_its_cosine_with_the_target_is_the_larger(tiny_model: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = {one.id: torch.rand(3, 64, 64, generator=generator) * 2 - 1 for one in SHOTS}
    (figure,) = ClipAccuracy(ImageJudge.embedded(tiny_model / "judge"))(TASK, SHOTS, pixels).figures
    expected = {}
    for one in SHOTS:
        anchored = one.row.prompt.replace("noto", "blob").replace("twemoji ", "")
        near, far = (cosine(tiny_model / "judge/clip", text, pixels[one.id]) for text in (one.row.prompt, anchored))
        expected[one.id] = float(near > far)
    assert figure.items == expected
    assert figure.direction == "lower"
    by_target = [[expected[name] for name in expected if name[0] == letter] for letter in "nt"]
    assert figure.value == pytest.approx(sum(sum(values) / len(values) for values in by_target) / 2)


def test_a_missing_image_counts_as_not_erased(tiny_model: Path) -> None:
    (figure,) = ClipAccuracy(ImageJudge.embedded(tiny_model / "judge"))(TASK, SHOTS[:2], {}).figures
    assert figure.items == {"n0": 1.0, "n1": 1.0}


def test_the_sides_are_counted_apart_and_what_is_kept_is_left_out(tiny_model: Path) -> None:
    shots = [SHOTS[0], shot("b", SHOTS[0].row.prompt, side="before", style="noto"), shot("k", group="kept")]
    pixels: dict[str, Tensor] = {one.id: torch.zeros(3, 64, 64) for one in shots}
    figures = ClipAccuracy(ImageJudge.embedded(tiny_model / "judge"))(TASK, shots, pixels).figures
    assert {figure.side: list(figure.items) for figure in figures} == {"before": ["b"], "after": ["n0"]}


def test_without_an_erased_prompt_there_is_no_figure(tiny_model: Path) -> None:
    shots = [shot("k", group="kept", style="blob")]
    assert (
        ClipAccuracy(ImageJudge.embedded(tiny_model / "judge"))(TASK, shots, {"k": torch.zeros(3, 64, 64)}).figures
        == ()
    )


@pytest.mark.parametrize(
    ("prompt", "target", "pair"),
    [
        ("a cat in noto style", NOTO, ("a cat in noto style", "a cat in blob style")),
        ("a cat in Noto style", NOTO, ("a cat in Noto style", "a cat in blob style")),
        ("a firefox cat", NOTO, ("a firefox cat", "a blob cat")),
        ("a notocat", NOTO, ("noto", "blob")),
        ("a cat in noto style", Target("noto", "style"), ("a cat in noto style", "a cat in style")),
        ("noto", Target("noto", "style", anchor=r"a\1b"), ("noto", r"a\1b")),
    ],
)
def test_the_anchor_stands_where_the_target_stood(prompt: str, target: Target, pair: tuple[str, str]) -> None:
    assert text_pair(Row(prompt, 0), target) == pair
