"""UA, IRA and CRA against a matrix written out by hand, and UnlearnCanvas's folders."""

from __future__ import annotations

import math

import pytest

from erase.evaluate.canvas import SEED_THEME, Answer, canvas

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


def test_nothing_asked_is_no_number() -> None:
    assert math.isnan(canvas([], ["Cats"], domain="object").ua)
