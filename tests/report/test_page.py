"""The page of a run: whole, self-contained, deaf to what prompts try, and the same every time."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

from erase.evaluate.score import Scores
from erase.report.page import SHOWN, report_html, write_report
from erase.report.panels import flips, panels, spread
from erase.report.pictures import embed
from tests.evaluate.pictures import noisy
from tests.report.made import made, square

HOSTILE = "a {object} <img src=x onerror=alert(1)> </script><script>alert(2)</script> in {style} style"
ADDRESSES = re.compile(r"""<[^>]*\b(?:src|href|poster|action|data)\s*=\s*["']?(?!data:|#)[^"'\s>]""")
FETCHES = re.compile(r"""url\(|@import|https?://|\bfetch\b|XMLHttpRequest|sendBeacon|WebSocket""")


def carried(page: str) -> dict[str, str]:
    """The files that a page carries, by name."""
    found = re.search(r'<script type="application/json" id="files">(.*?)</script>', page, re.DOTALL)
    assert found
    files: dict[str, str] = json.loads(found[1])
    return files


def test_nothing_outside_the_page_is_asked_for(tmp_path: Path) -> None:
    page = report_html(made(tmp_path))
    assert FETCHES.search(page) is None
    assert ADDRESSES.search(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)) is None
    assert "default-src 'none'" in page


def test_every_image_stands_in_the_page_once(tmp_path: Path) -> None:
    findings = made(tmp_path)
    page = report_html(findings)
    for pair in findings.pairs:
        for shot in (pair.before, pair.after):
            assert page.count(embed(shot.path).address) == 1


def test_every_images_prompt_seed_and_scores_are_in_its_row(tmp_path: Path) -> None:
    findings = made(tmp_path)
    rows = re.findall(r'<tr class="group-\w+"><td><a href="#pair-\d+">.*?</tr>', report_html(findings), re.DOTALL)
    assert len(rows) == 2 * len(findings.pairs)
    for number, pair in enumerate(findings.pairs):
        row = rows[2 * number + 1]
        assert f"<td>{pair.after.row.prompt}</td>" in row
        assert f'<td class="number">{pair.after.row.seed}</td>' in row
        assert f'<td class="number">{findings.values(pair.after)["clip"]:.4g}</td>' in row


def test_a_prompt_that_is_html_stays_text(tmp_path: Path) -> None:
    findings = made(tmp_path, rows=square(HOSTILE))
    page = report_html(findings)
    assert "<img src=x" not in page
    assert page.count("</script>") == 2  # the files' and the page's own
    assert findings.pairs[0].after.row.prompt in unescape(page)
    assert findings.pairs[0].after.row.prompt in json.loads(carried(page)["report.json"])["images"][0]["prompt"]


def test_only_images_of_unsafe_tasks_are_veiled(tmp_path: Path) -> None:
    style, unsafe = (made(tmp_path, kind=kind, target=name) for kind, name in (("style", "noto"), ("unsafe", "cat")))
    assert "data-veiled>" not in report_html(style)
    page = report_html(unsafe)
    assert page.count("data-veiled>") == page.count('class="veil"') == len(unsafe.pairs)


def test_a_missing_image_is_told_in_its_place_and_on_top(tmp_path: Path) -> None:
    findings = made(tmp_path)
    findings.pairs[0].after.path.write_bytes(b"\x89PNG damaged")
    findings = replace(findings, scores=replace(findings.scores, missing=(findings.pairs[0].after.id,)))
    page = report_html(findings)
    assert page.count('aria-label="after: no image"') == 1
    assert "1 image is missing or damaged" in page


def test_recipe_hashes_and_versions_are_told(tmp_path: Path) -> None:
    page = report_html(made(tmp_path))
    for told in ("b" * 64, "c" * 64, "d" * 64, "e" * 64, "clip/test", "lamb 0.5", "DDIM, 2 steps"):
        assert told in page


def test_a_run_without_scores_has_its_images_and_no_empty_parts(tmp_path: Path) -> None:
    findings = replace(made(tmp_path, bounds={}), scores=Scores(()))
    page = report_html(findings)
    assert page.count('class="pair"') == len(findings.pairs)
    for part in ("scores", "spread", "interference"):
        assert f'id="{part}"' not in page
        assert f'href="#{part}"' not in page


def test_the_same_findings_give_the_same_files(tmp_path: Path) -> None:
    findings = made(tmp_path)
    once, again = (write_report(findings, tmp_path / name / "report.html") for name in ("one", "two"))
    assert [path.name for path in once] == ["report.json", "figures.csv", "images.csv", "report.html"]
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]
    page = once[-1].read_text(encoding="utf-8")
    assert carried(page) == {path.name: path.read_text(encoding="utf-8") for path in once[:-1]}


def test_graded_scores_have_panels_and_yes_or_no_scores_have_flips(tmp_path: Path) -> None:
    findings = made(tmp_path)
    assert [(panel.title, panel.group) for panel in panels(findings)] == [
        ("CLIP score (cosine x 100)", group) for group in ("erased", "kept", "unrelated")
    ]
    counts = {(flip.title, flip.group): flip.counts for flip in flips(findings)}
    assert counts["clean UA, targets no longer seen", "erased"] == (0, 0, 4, 0)
    assert counts["judge's style accuracy", "erased"] == (0, 4, 0, 0)
    assert counts["judge's style accuracy", "kept"] == (8, 0, 0, 0)


def test_of_many_pairs_some_are_shown_and_none_is_lost(tmp_path: Path) -> None:
    pairs = list(made(tmp_path).pairs)
    shown, more = spread(pairs, 4)
    assert len(shown) == 4
    assert sorted(map(pairs.index, [*shown, *more])) == list(range(len(pairs)))
    assert spread(pairs, SHOWN) == (pairs, [])


def test_small_images_keep_every_bit_and_large_ones_are_made_smaller(tmp_path: Path) -> None:
    small, large = (embed(noisy(tmp_path / f"{side}.png", side=side)) for side in (16, 700))
    assert small.is_blocky
    assert not large.is_blocky
    assert len(large.address) < 700 * 700
    assert embed(tmp_path / "none.png").address == ""


def test_scores_show_themselves_in_notebooks(tmp_path: Path) -> None:
    findings = made(tmp_path)
    html = findings._repr_html_()
    assert html.count("<tr>") == 1 + len([one for one in findings.scores.figures if one.side == "after"])
    assert "100.0 % (51 to 100)" in html
