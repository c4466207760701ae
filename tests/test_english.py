"""Articles and plurals are those that are said."""

from __future__ import annotations

import pytest

from erase.config.prompts import fill
from erase.english import article, plural

AN = (
    "apple",
    "hourglass",
    "hour",
    "honest man",
    "elephant",
    "umbrella",
    "8-bit cat",
    "11-year-old house",
    "1850s house",
)
AN_TOO = ("18th-century house", "Émile", "élan", "X-ray", "ice cream", "MRI scan")
A = (
    "cat",
    "unicorn",
    "university",
    "European",
    "one-eyed cat",
    "ukulele",
    "NASA poster",
    "1200s house",
    "2-headed dog",
)
A_TOO = ("UFO", "Béla", "Ukrainian house", "house")


@pytest.mark.parametrize(
    ("word", "needed"), [(word, "an") for word in AN + AN_TOO] + [(word, "a") for word in A + A_TOO]
)
def test_an_article_goes_by_sound(word: str, needed: str) -> None:
    assert article(word) == needed
    assert fill("A {object} and a {object}", {"object": word}) == f"{needed.capitalize()} {word} and {needed} {word}"


def test_an_article_of_ones_own_is_taken() -> None:
    assert fill("a {x} in a {y}", {"x": "herb", "y": "house"}, articles={"herb": "an"}) == "an herb in a house"


@pytest.mark.parametrize(("one", "many"), [("cat", "cats"), ("bus", "buses"), ("knife", "knives"), ("mouse", "mice")])
def test_a_plural_is_the_nouns_own(one: str, many: str) -> None:
    assert plural(one) == many
