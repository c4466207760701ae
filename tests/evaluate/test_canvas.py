"""UA, IRA and CRA against a matrix written out by hand, and UnlearnCanvas's folders."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from erase.errors import ScoreFailed
from erase.evaluate.canvas import SEED_THEME, SEEDS, Answer, Canvas, answers_of, canvas, mean_of, read_layout

THEMES, OBJECTS = ("Van_Gogh", "Crayon", SEED_THEME), ("Cats", "Dogs")


def answers() -> list[Answer]:
    """A model that forgot Van_Gogh: shares of right answers that differ by concept and theme."""
    shares = {"Van_Gogh": 0.2, "Crayon": 0.9, SEED_THEME: 0.4, "Cats": 0.8, "Dogs": 0.6}
    return [
        Answer(domain, concept, number < 10 * shares[concept], theme)
        for theme in THEMES
        for domain, concepts in (("style", (theme,)), ("object", OBJECTS))
        for concept in concepts
        for number in range(10)
    ]


def test_the_three_numbers_without_the_seed_theme() -> None:
    found = canvas(answers(), ["Van_Gogh"], domain="style")
    assert found.ua == pytest.approx(1 - 0.2)
    assert found.ira == pytest.approx(0.9)
    assert found.cra == pytest.approx((0.8 + 0.6) / 2)


def test_the_seed_theme_moves_ira_if_it_is_counted() -> None:
    found = canvas(answers(), ["Van_Gogh"], domain="style", with_seed=True)
    assert found.ira == pytest.approx((0.9 + 0.4) / 2)
    assert found.ua == pytest.approx(0.8)


def test_of_an_object_the_domains_are_swapped() -> None:
    found = canvas(answers(), ["Cats"], domain="object")
    assert found.ua == pytest.approx(0.2)
    assert found.ira == pytest.approx(0.6)
    assert found.cra == pytest.approx((0.2 + 0.9) / 2)


def test_the_reported_numbers_are_means_over_models() -> None:
    assert mean_of([Canvas(1.0, 0.5, 0.2), Canvas(0.5, 0.7, 0.4)]) == Canvas(0.75, 0.6, pytest.approx(0.3))


def test_nothing_asked_is_no_number() -> None:
    assert math.isnan(canvas([], ["Cats"], domain="object").ua)


@pytest.mark.parametrize("name", ["{}_{}_seed_{}.jpg", "{}_{}_seed{}.jpg"])
def test_both_spellings_of_the_files_are_found_and_gaps_named(tmp_path: Path, name: str) -> None:
    for theme in THEMES:
        (tmp_path / theme).mkdir()
        for thing in OBJECTS:
            for seed in SEEDS:
                (tmp_path / theme / name.format(theme, thing, seed)).touch()
    (tmp_path / "Crayon" / name.format("Crayon", "Dogs", 188)).unlink()
    layout = read_layout(tmp_path, THEMES, OBJECTS)
    assert len(layout.files) == 29
    assert layout.missing == ("Crayon_Dogs_seed_188",)


def test_missing_files_count_against_the_edit(tmp_path: Path) -> None:
    (tmp_path / "Crayon_Cats_seed_188.jpg").touch()
    layout = read_layout(tmp_path, THEMES[:2], OBJECTS, SEEDS[:1])
    found = answers_of(
        layout,
        THEMES[:2],
        OBJECTS,
        seeds=SEEDS[:1],
        classify=lambda path: ("Crayon", "Cats"),
        forgotten=["Van_Gogh"],
    )
    measured = canvas(found, ["Van_Gogh"], domain="style")
    assert measured.ua == 0.0  # no image of it is there to prove anything
    assert measured.ira == 0.5
    assert measured.cra == 0.25


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").touch()
    with pytest.raises(ScoreFailed, match="holds none of the 30 images"):
        read_layout(tmp_path, THEMES, OBJECTS)
