"""A pack refuses what was changed in it: by one check each, also where the forger has written every hash anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from erase.evaluate.result import FILE, FIXED, recompute
from erase.evidence import check as checking
from erase.evidence import sign
from erase.evidence.check import check_pack
from erase.evidence.pack import Beside, files_of, write_pack
from erase.evidence.stored import APART, EDIT, MANIFEST
from tests.evidence.packs import Values, change, hash_anew, values

Forge = Callable[[Path, Path], None]  # a pack to be forged, and another run's


def a_score(pack: Path, _: Path) -> None:
    """What the detector found in one image of the target, so that it does not show it."""

    def how(told: Values) -> None:
        told["outcomes"][0]["scores"] = [0.1, told["outcomes"][0]["scores"][1]]

    change(pack, FILE, how)


def an_answer(pack: Path, _: Path) -> None:
    """The answer of one question, and the verdict with it, against the score that stands beside it."""

    def how(told: Values) -> None:
        told["outcomes"][-1]["after"] = False
        told.update(recompute(told)[1])
        told["totals"][1]["after"] = sum(one["after"] for one in told["outcomes"] if one["role"] == "kept") / 16

    change(pack, FILE, how)


def an_interval(pack: Path, _: Path) -> None:
    change(pack, FILE, lambda told: told["checks"][0].update(low=0.97))


def a_limit(pack: Path, _: Path) -> None:
    """A limit after the images were seen, and the verdict with it."""

    def how(told: Values) -> None:
        told["limits"]["gone"] = 0.3
        told.update(recompute(told)[1])

    change(pack, FILE, how)
    change(pack, FILE, lambda told: told["protocol"]["limits"].update(gone=0.3))
    change(pack, FIXED, lambda told: told["protocol"]["limits"].update(gone=0.3))


def an_image_swapped(pack: Path, _: Path) -> None:
    """Two images after the edit change places, and their hashes with them."""
    first, second = (values(pack, FILE)["outcomes"][number]["images"]["after"] for number in (0, 1))
    shutil.move(pack / first, pack / "aside")
    shutil.move(pack / second, pack / first)
    shutil.move(pack / "aside", pack / second)

    def how(told: Values) -> None:
        told["images"][first], told["images"][second] = told["images"][second], told["images"][first]

    change(pack, FILE, how)


def an_image_missing(pack: Path, _: Path) -> None:
    """One pair's image is taken out, with what was seen of it told as if nothing were to compare."""
    name = values(pack, FILE)["outcomes"][0]["images"]["after"]
    (pack / name).unlink()

    def how(told: Values) -> None:
        told["outcomes"][0]["distance"] = None

    change(pack, FILE, how)


def the_protocol(pack: Path, _: Path) -> None:
    """Other words for what was asked."""
    change(pack, FIXED, lambda told: told["form"].update(version="4"))


def the_budget(pack: Path, _: Path) -> None:
    """More attacks than were run."""
    change(pack, FIXED, lambda told: told["budget"].update(attacks={"fine-tuning": {"steps": 1000}}))


def the_edit(pack: Path, other: Path) -> None:
    shutil.copyfile(other / EDIT, pack / EDIT)


def the_detector(pack: Path, _: Path) -> None:
    change(pack, FILE, lambda told: told["hashes"]["detectors"].update(judge={"style/model.safetensors": "0" * 64}))


def the_date(pack: Path, _: Path) -> None:
    """A result from before its protocol was fixed."""
    change(pack, FILE, lambda told: told.update(date="2024-02-29T12:00:00+00:00"))


def another_runs(pack: Path, other: Path) -> None:
    """Result, images and edit of another run, under this one's plan."""
    for name in (FILE, EDIT):
        shutil.copyfile(other / name, pack / name)
    shutil.rmtree(pack / "images")
    shutil.copytree(other / "images", pack / "images")


# The check that catches each although every hash was written anew; the signature catches every one of them.
FORGERIES = MappingProxyType(
    {
        a_score: "scores",
        an_answer: "scores",
        an_interval: "verdict",
        a_limit: "limits",
        an_image_swapped: "pixels",
        an_image_missing: "images",
        the_protocol: "protocol",
        the_budget: "budget",
        the_edit: "edit",
        the_detector: "detectors",
        the_date: "dates",
        another_runs: "subject",
    }
)
each_forgery = pytest.mark.parametrize("forge", FORGERIES, ids=lambda one: one.__name__)


def found_in(pack: Path) -> set[str]:
    return {name for name, _ in check_pack(pack).problems}


def test_a_pack_that_nobody_touched_is_sound_and_ends_with_0(pack: Path) -> None:
    checked = check_pack(pack)
    assert checked.problems == ()
    assert (checked.verdict, checked.exit_code) == ("passed", 0)


@each_forgery
def test_hashes_catch_what_was_changed(forge: Forge, pack: Path, packs: tuple[Path, Path]) -> None:
    forge(pack, packs[1])
    checked = check_pack(pack)
    assert "files" in found_in(pack)
    assert checked.exit_code == 3


@each_forgery
def test_with_every_hash_written_anew_the_check_of_that_thing_catches_it(
    forge: Forge, pack: Path, packs: tuple[Path, Path]
) -> None:
    forge(pack, packs[1])
    hash_anew(pack)
    assert found_in(pack) == {FORGERIES[forge]}
    assert check_pack(pack).exit_code == 3


@each_forgery
def test_without_that_check_the_forgery_would_pass(
    forge: Forge, pack: Path, packs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(pack, packs[1])
    hash_anew(pack)
    others = {name: one for name, one in checking.CHECKS.items() if name != FORGERIES[forge]}
    monkeypatch.setattr(checking, "CHECKS", others)
    assert check_pack(pack).problems == ()


def test_a_manifest_hashed_anew_without_the_key_is_refused(
    verifications: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, pack = tmp_path / "schlüssel.pem", tmp_path / "pack"
    sign.new_key(key)
    write_pack(verifications[0], pack, Beside(key=key))
    assert check_pack(pack).problems == ()
    change(pack, FILE, lambda told: told.update(device="a better one"))  # which nothing else depends on
    hash_anew(pack)
    assert found_in(pack) == {"signature"}
    assert check_pack(pack).exit_code == 3
    monkeypatch.setattr(checking, "CHECKS", {n: one for n, one in checking.CHECKS.items() if n != "signature"})
    assert check_pack(pack).problems == ()


def test_a_whole_pack_of_another_run_is_refused_by_whoever_names_the_edit(packs: tuple[Path, Path]) -> None:
    one, other = packs
    assert check_pack(one, edit=one / EDIT).problems == ()
    assert [name for name, _ in check_pack(other, edit=one / EDIT).problems] == ["edit"]


def test_a_question_left_out_is_noticed(pack: Path) -> None:
    def how(told: Values) -> None:
        left = told["outcomes"].pop()
        for name in left["images"].values():
            del told["images"][name]
            (pack / name).unlink()
        told.update(recompute(told)[1])

    change(pack, FILE, how)
    hash_anew(pack)
    assert {"questions", "budget"} <= found_in(pack)


def test_a_prompt_that_the_edit_was_made_on_cannot_be_left_out(pack: Path) -> None:
    assert "twemoji" in values(pack, APART)["used"]
    change(pack, APART, lambda told: told["used"].remove("twemoji"))
    hash_anew(pack)
    assert found_in(pack) == {"apart"}


def test_a_file_that_the_manifest_does_not_know_is_refused(pack: Path) -> None:
    (pack / "images/more.png").write_bytes(b"")
    assert found_in(pack) == {"files"}


def test_a_page_that_shows_something_else_is_refused(pack: Path) -> None:
    page = pack / "evidence.html"
    page.write_text(page.read_text(encoding="utf-8") + "<p>100 %</p>", encoding="utf-8")
    hashes = files_of(pack)
    change(pack, MANIFEST, lambda told: told.update(files=hashes))
    assert found_in(pack) == {"figures"}


def test_a_name_that_leads_out_of_the_pack_is_not_followed(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    outcome = values(pack, FILE)["outcomes"][0]["images"]["after"]

    def how(told: Values) -> None:
        told["images"]["../secret.png"] = told["images"].pop(outcome)
        told["outcomes"][0]["images"]["after"] = "../secret.png"

    change(pack, FILE, how)
    hash_anew(pack)
    assert any("outside of the pack" in text for _, text in check_pack(pack).problems)
