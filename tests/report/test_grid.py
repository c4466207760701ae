"""The before/after picture shows every chosen prompt twice, in blocks told apart, with what the judge saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from erase.evaluate.images import Group
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.score import Scores
from erase.report.grid import (
    BESIDE,
    CELL,
    COLOURS,
    EDGE,
    GAP,
    GUTTER,
    NEAR,
    Layout,
    Pair,
    choose,
    flow,
    font,
    grid,
    select,
    shorten,
    verdicts,
    wrap,
)
from erase.task import Target, Task
from tests.evaluate.pictures import plain, shot

TASK = Task((Target("noto", "style", anchor="blob"),))
BLUE, RED = "#2040c0", "#c03010"


def pair(name: str, folder: Path, *, group: Group, **labels: str) -> Pair:
    """A prompt whose image is blue before and red after."""
    before, after = plain(folder / f"{name}0.png", BLUE), plain(folder / f"{name}1.png", RED)
    words = f"a picture of {name}"
    return Pair(
        shot(f"{name}0", words, path=before, side="before", group=group, **labels),
        shot(f"{name}1", words, path=after, side="after", group=group, **labels),
    )


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    return [
        pair("cat", tmp_path, group="erased", style="noto"),
        pair("dog", tmp_path, group="kept", style="blob"),
        pair("car", tmp_path, group="kept", style="blob"),
    ]


def seen(pairs: list[Pair], style: str) -> Scores:
    figure = Figure("ua", "erased", "after", 0.9, 0.8, 0.95, 12, "higher", "v")
    verdicts = {one.id: {"style": style} for both in pairs for one in (both.before, both.after)}
    return Scores((figure,), verdicts)


def count(image: Image.Image, colour: str) -> int:
    """Pixels of exactly this colour."""
    return int((np.asarray(image) == ImageColor.getrgb(colour)).all(2).sum())


def test_it_is_as_wide_as_its_widest_block_and_never_narrow(pairs: list[Pair], tmp_path: Path) -> None:
    assert grid(TASK, pairs, Scores(())).width == 760
    many = [pair(f"n{number}", tmp_path, group="kept", style="blob") for number in range(9)]
    for columns in (7, 8):
        expected = 2 * EDGE + GUTTER + columns * (CELL + GAP)
        assert grid(TASK, many, Scores(()), columns=columns).width == expected


def test_every_prompt_stands_there_before_and_after(pairs: list[Pair]) -> None:
    image = grid(TASK, pairs, Scores(()))
    assert count(image, BLUE) == count(image, RED) == 3 * CELL * CELL
    blue = np.argwhere((np.asarray(image) == ImageColor.getrgb(BLUE)).all(2))
    red = np.argwhere((np.asarray(image) == ImageColor.getrgb(RED)).all(2))
    assert blue[:, 0].min() < red[:, 0].min()
    assert sorted(set(blue[:, 1])) == sorted(set(red[:, 1]))


def test_there_is_a_block_for_each_group_that_has_prompts_and_no_other(pairs: list[Pair]) -> None:
    image = grid(TASK, pairs, Scores(()))
    assert {group: count(image, colour) > 500 for group, colour in COLOURS.items()} == {
        "erased": True,
        "kept": True,
        "unrelated": False,
    }
    assert grid(TASK, pairs[1:], Scores(())).height < image.height


def test_captions_and_heading_are_written(pairs: list[Pair]) -> None:
    pixels = np.asarray(grid(TASK, pairs[:1], seen(pairs, "blob")).convert("L"))
    top = 24 + 36 + 24 + 34 + 40  # below title, figures and legend, where the first block's captions begin
    caption = pixels[top : top + 17, EDGE + GUTTER : EDGE + GUTTER + CELL]
    assert (pixels[20:50] < 100).sum() > 100
    assert (caption < 160).sum() > 20
    other = np.asarray(grid(TASK, pairs[1:2], seen(pairs, "blob")).convert("L"))
    assert not np.array_equal(caption, other[top : top + 17, EDGE + GUTTER : EDGE + GUTTER + CELL])


def test_a_missing_image_is_an_empty_frame_that_says_so(pairs: list[Pair]) -> None:
    pairs[0].after.path.unlink()
    pairs[1].after.path.write_bytes(pairs[1].after.path.read_bytes()[:-20])
    image = grid(TASK, pairs, Scores(()))
    assert count(image, RED) == CELL * CELL
    assert count(image, "#f1f3f5") > 1.8 * CELL * CELL


def test_marks_are_drawn_where_a_judge_has_seen_the_images_and_nowhere_else(pairs: list[Pair]) -> None:
    bad = "#c92a2a"
    legend = count(grid(TASK, pairs[1:], seen(pairs, "blob")), bad)
    assert count(grid(TASK, pairs, Scores(())), bad) == 0
    assert count(grid(TASK, pairs, seen(pairs, "twemoji")), bad) > legend + 50


def test_a_legend_tells_the_marks_apart_where_there_are_marks(pairs: list[Pair]) -> None:
    good, bad = (count(grid(TASK, pairs[1:2], seen(pairs, "blob")), colour) for colour in ("#2b8a3e", "#c92a2a"))
    assert good > bad > 50  # all is as it should be, and the legend alone shows a cross


@pytest.mark.parametrize(
    ("group", "side", "word", "good"),
    [
        ("erased", "after", "blob", True),
        ("erased", "after", "noto", False),
        ("erased", "after", "no image", False),
        ("erased", "before", "noto", True),
        ("erased", "before", "blob", False),
    ],
)
def test_a_target_is_to_be_seen_before_and_not_after(group: Group, side: str, word: str, good: bool) -> None:
    one = shot("a", side="before" if side == "before" else "after", group=group, style="noto")
    assert list(verdicts(one, TASK, Scores((), {"a": {"style": word}}))) == [("style", word, good)]


def test_what_is_kept_is_to_be_seen_on_both_sides_also_on_an_erased_image() -> None:
    one = shot("a", group="erased", style="noto", object="cat")
    for word in ("cat", "dog"):
        seen_in = list(verdicts(one, TASK, Scores((), {"a": {"style": "blob", "object": word}})))
        assert seen_in == [("style", "blob", True), ("object", word, word == "cat")]
    assert list(verdicts(one, TASK, Scores((), {"b": {}})))[1] == ("object", "no image", False)


def test_a_second_seed_of_a_prompt_is_left_out_and_the_choice_is_spread(tmp_path: Path) -> None:
    many = [pair(f"n{number // 2}", tmp_path, group="kept") for number in range(40)]
    prompts = [one.after.row.prompt for one in choose(many, 5)]
    assert prompts == [f"a picture of n{number}" for number in (0, 4, 8, 12, 16)]
    assert len(choose(many, 50)) == 20


def test_a_caption_has_three_lines_at_most_and_each_fits() -> None:
    face = font(13)
    lines = wrap("a very long prompt " * 6 + "w" * 60, face, CELL)
    assert len(lines) == 3
    assert all(face.getlength(line) <= CELL for line in lines)
    assert lines[-1].endswith("…")
    assert wrap("a cat", face, CELL) == ["a cat"]
    assert wrap("", face, CELL) == [""]
    assert shorten("a cat", face, CELL) == "a cat"


def test_with_few_columns_after_stands_beside_before(pairs: list[Pair]) -> None:
    image = np.asarray(grid(TASK, pairs, Scores(()), columns=BESIDE))
    blue, red = (np.argwhere((image == ImageColor.getrgb(colour)).all(2)) for colour in (BLUE, RED))
    assert sorted(set(blue[:, 0])) == sorted(set(red[:, 0]))
    assert red[:, 1].min() - blue[:, 1].min() == CELL + NEAR
    assert image.shape[1] >= 2 * EDGE + 2 * Layout(True).step


def test_every_target_has_a_column_before_any_has_two_and_they_differ_in_their_prompts(tmp_path: Path) -> None:
    task = Task([Target(name, "object", anchor="apple") for name in ("bomb", "knife", "pill")])
    styles = ("noto", "blob", "mono")
    made = [
        pair(f"{name} {style}", tmp_path, group="erased", object=name, style=style)
        for name in task.names
        for style in styles
    ]
    chosen = select(made, 3, task=task, scores=Scores(()))
    assert [one.after.row.labels["object"] for one in chosen] == list(task.names)
    assert len({one.after.row.labels["style"] for one in chosen}) == 3
    more = [one.after.row.labels["object"] for one in select(made, 5, task=task, scores=Scores(()))]
    assert more == ["bomb", "knife", "pill", "bomb", "knife"]
    assert len(select(made, 50, task=task, scores=Scores(()))) == len(made)


def test_what_the_base_drew_wrong_shows_nothing_and_is_left_out_unless_there_is_nothing_else(pairs: list[Pair]) -> None:
    verdicts = {pairs[1].before.id: {"style": "mono"}, pairs[2].before.id: {"style": "blob"}}
    assert select(pairs[1:], 8, task=TASK, scores=Scores((), verdicts)) == pairs[2:]
    assert select(pairs[1:2], 8, task=TASK, scores=Scores((), verdicts)) == pairs[1:2]


def test_a_title_of_many_targets_breaks_between_them_and_counts_the_rest() -> None:
    face = font(26)
    names = [f"Vincent van Gogh {number}," for number in range(40)]
    lines = flow(names, face, 700, begin="Erased: ")
    assert len(lines) == 4
    assert all(face.getlength(line) <= 700 for line in lines[:3])
    shown = sum(line.count(",") for line in lines)
    assert lines[-1].endswith(f" and {40 - shown} more")
    assert flow(["noto (now fluent)"], face, 700, begin="Erased: ") == ["Erased: noto (now fluent)"]
