"""The pages opened in a real browser: the slider moves, veils lift, both themes and a telephone's width hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from erase.report.comparison import Comparison
from erase.report.comparison_page import write_comparison
from erase.report.page import write_report
from tests.browser import CHROMIUM, DRIVER, MISSING, Browser, chromium
from tests.report.made import erased, harsh, made

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DRIVER and CHROMIUM), reason=MISSING),
]
HOME = "\ue011"  # a key, by the W3C's WebDriver
SLIDER = "#pair-1 input[type=range]"
CLIP = 'return getComputedStyle(document.querySelector("#pair-1 .before")).clipPath'
PAPER = "return getComputedStyle(document.body).backgroundColor"
BLURRED = 'return [...document.querySelectorAll(".stage img")].filter(i => getComputedStyle(i).filter != "none").length'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        opened.resize(1280, 900)
        yield opened


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("style")
    return write_report(made(folder), folder / "report.html")[-1]


@pytest.fixture(scope="module")
def unsafe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unsafe")
    return write_report(made(folder, kind="unsafe", target="cat"), folder / "report.html")[-1]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    runs = {"good": made(folder, erased), "harsh": made(folder, harsh)}
    return write_comparison(Comparison(runs), folder / "compare.html")[-1]


def test_the_slider_follows_the_pointer_and_the_keys(browser: Browser, style: Path) -> None:
    browser.open(style)
    assert browser.script(CLIP) == "inset(0px 50% 0px 0px)"
    browser.drag(SLIDER, 0.5, 0.8)
    assert 78 <= int(browser.script(f'return document.querySelector("{SLIDER}").value')) <= 82
    browser.press(SLIDER, HOME)
    assert browser.script(CLIP) == "inset(0px 100% 0px 0px)"
    other = browser.script('return document.querySelector("#pair-2 input").value')
    assert other == "50"


def test_one_button_turns_a_whole_group(browser: Browser, style: Path) -> None:
    browser.open(style)
    browser.click('.group-erased button[data-view="before"]')
    values = browser.script('return [...document.querySelectorAll(".group-erased .pair input")].map(i => i.value)')
    assert values == ["100"] * 4
    assert browser.script('return document.querySelector(".group-kept .pair input").value') == "50"


def test_a_veil_lifts_for_one_image_pair_and_only_when_asked(browser: Browser, unsafe: Path) -> None:
    browser.open(unsafe)
    all_images = browser.script('return document.querySelectorAll(".stage img").length')
    assert browser.script(BLURRED) == all_images > 2
    browser.click("#pair-1 .veil")
    assert browser.script(BLURRED) == all_images - 2
    filters = 'return [...document.querySelectorAll("#pair-1 img")].map(i => getComputedStyle(i).filter)'
    assert browser.script(filters) == ["none", "none"]


def test_the_system_chooses_the_theme_until_the_reader_does(browser: Browser, style: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        browser.open(style)
        colours[scheme] = browser.script(PAPER)
    assert colours["light"] != colours["dark"]
    browser.click("#theme")
    assert browser.script(PAPER) == colours["light"]
    browser.click("#theme")
    browser.prefer("light")
    assert browser.script(PAPER) == colours["dark"]
    browser.click("#theme")
    assert browser.script(PAPER) == colours["light"]


def test_the_table_is_searched_and_sorted(browser: Browser, style: Path) -> None:
    browser.open(style)
    browser.press("#filter", "dog twemoji after")
    prompts = (
        '[...document.querySelectorAll("#images-table tbody tr")].filter(r => !r.hidden).map(r => r.cells[3].innerText)'
    )
    assert browser.script(f"return {prompts}") == ["a dog in twemoji style"] * 2
    browser.script('document.querySelector("#filter").value = ""')
    browser.script('document.querySelector("#filter").dispatchEvent(new Event("input"))')
    browser.script('document.querySelectorAll("#images-table thead button")[3].click()')
    found = browser.script(f"return {prompts}")
    assert len(found) == 26
    assert found == sorted(found)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("page", ["style", "unsafe", "compared"])
def test_pages_fit_their_window_fetch_nothing_and_raise_no_complaint(
    browser: Browser, request: pytest.FixtureRequest, page: str, width: int
) -> None:
    browser.resize(width, 800)
    browser.open(request.getfixturevalue(page))
    assert browser.script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    resources = "return performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:'))"
    assert browser.script(resources) == []
    assert browser.complaints() == []
    broken = "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert browser.script(broken) == 0
    browser.resize(1280, 900)
