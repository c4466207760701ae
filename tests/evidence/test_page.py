"""The pack's page: it says what the figures say, and shows it on every screen and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from erase.evidence.figures import figures_of
from erase.evidence.page import headline, page_of
from erase.evidence.stored import FIGURES, MANIFEST, PAGE, Held, hold
from tests.browser import CHROMIUM, DRIVER, MISSING, Browser, chromium
from tests.evidence.packs import values


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip(MISSING)
    with chromium() as one:
        yield one


def test_its_first_sentence_is_what_was_seen(packs: tuple[Path, Path]) -> None:
    held = hold(packs[0])
    said = "Asked for noto, the model showed it in 16 of 16 images before the edit and in 0 after it"
    assert headline(held, values(packs[0], FIGURES)) == said
    assert said in (packs[0] / PAGE).read_text(encoding="utf-8")


def test_where_nothing_was_seen_the_bound_is_said_by_its_name(packs: tuple[Path, Path]) -> None:
    page = (packs[0] / PAGE).read_text(encoding="utf-8")
    assert "rule of three, 3/16" in page
    assert "fewer than 18.8 %" in page
    assert "or 75.0 % if images of one prompt count together (3/4)" in page


def test_what_was_not_done_stands_on_it(packs: tuple[Path, Path]) -> None:
    page = (packs[0] / PAGE).read_text(encoding="utf-8")
    assert "Not attacked by" in page
    assert "Unsigned: whoever holds this folder can have written it" in page
    assert "nobody measured this detector on labelled images" in page


def test_names_cannot_write_into_it(packs: tuple[Path, Path]) -> None:
    held = hold(packs[0])
    evil = "<script>alert('Müller')</script>"
    task = {**held.result["task"], "targets": [{**held.result["task"]["targets"][0], "name": evil}]}
    other = Held(held.folder, {**held.result, "task": task, "model": evil}, held.fixed)
    page = page_of(other, figures_of(held), values(packs[0], MANIFEST))
    assert evil not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window_and_raises_no_complaint(
    browser: Browser, packs: tuple[Path, Path], width: int, scheme: str
) -> None:
    browser.resize(width, 800)
    browser.prefer(scheme)
    browser.open(packs[0] / PAGE)
    assert browser.script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    ink, paper = browser.script(
        "const one = getComputedStyle(document.body); return [one.color, one.backgroundColor].map(text => "
        "text.match(/[0-9.]+/g).slice(0, 3).reduce((sum, one) => sum + Number(one), 0))"
    )
    assert (ink > paper) == (scheme == "dark")
    assert browser.complaints() == []
