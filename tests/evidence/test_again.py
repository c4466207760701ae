"""Detectors that look at a pack's images again, and what is computed from what they see unasked."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from erase.errors import BadEvidence
from erase.evaluate.detect import Given
from erase.evaluate.detections import Finding
from erase.evaluate.gate import Outcome
from erase.evaluate.result import FILE, recompute
from erase.evidence.check import check_pack
from erase.evidence.pack import Beside, write_pack
from erase.evidence.retained import bound, unasked
from erase.evidence.stored import SEEN, Held
from erase.models import Model
from tests.evidence.packs import Values, change, hash_anew, judged, values


@pytest.fixture(scope="module")
def looked(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Given]:
    """A pack whose images were looked at twice, and its judge; do not change it."""
    folder = tmp_path_factory.mktemp("again")
    source, given = judged(model, folder / "source")
    write_pack(source, folder / "pack", Beside(given=given))
    return folder / "pack", given


def test_detectors_that_say_the_same_find_nothing_wrong(looked: tuple[Path, Given]) -> None:
    pack, given = looked
    assert check_pack(pack, given=given).problems == ()
    assert set(values(pack, SEEN)) == {"before", "after"}
    assert len(values(pack, SEEN)["after"]) == 32


def test_scores_and_answers_that_were_made_up_to_fit_each_other_are_refused(
    looked: tuple[Path, Given], tmp_path: Path
) -> None:
    """The forger of a failed verdict, who wrote scores, answers, curves, checks and hashes that agree."""
    pack, given = Path(shutil.copytree(looked[0], tmp_path / "pack")), looked[1]

    def how(told: Values) -> None:
        told["outcomes"][-1] |= {"after": False, "scores": [0.9, 0.2], "found": [1, 0]}
        told.update(recompute(told)[1])
        told["totals"][1]["after"] = 15 / 16

    change(pack, FILE, how)
    hash_anew(pack)
    assert check_pack(pack).problems == ()
    assert {name for name, _ in check_pack(pack, given=given).problems} == {"again"}


def test_a_pack_is_not_made_of_images_of_which_the_detectors_say_otherwise(
    model: Model, tmp_path: Path, looked: tuple[Path, Given]
) -> None:
    source, _ = judged(model, tmp_path / "source")
    blind = Given(detectors={"judge": lambda pictures: [[Finding("blob", 0.9, "style")] for _ in pictures]})
    with pytest.raises(BadEvidence, match="now say otherwise"):
        write_pack(source, tmp_path / "pack", Beside(given=blind))
    assert not (tmp_path / "pack").exists()


def test_a_pack_without_images_cannot_be_looked_at_again(
    verifications: tuple[Path, Path], tmp_path: Path, looked: tuple[Path, Given]
) -> None:
    write_pack(verifications[0], tmp_path / "pack", Beside(images=False))
    assert {name for name, _ in check_pack(tmp_path / "pack", given=looked[1]).problems} == {"again"}


def kept(prompt: str, concept: str, *, before: bool = True, after: bool | None = True) -> Outcome:
    return Outcome(prompt, 0, "kept", "others", concept, before, after)


def test_two_concepts_are_bound_if_one_image_has_both() -> None:
    outcomes = [
        *(kept(f"a {one} in blob style", "blob") for one in ("cat", "dog", "fish", "car")),
        kept("a cat in blob style", "cat"),
        kept("a dog in blob style", "dog", after=False),
        kept("a fish in blob style", "fish", after=None),
        kept("a car in blob style", "car", before=False),  # the base model did not draw it right
    ]
    found = bound(outcomes, 0.95)
    assert found is not None
    # cat holds; dog lost one; fish was not looked at, which counts as lost; car was never right
    assert (found["images"], found["held"], found["of"]) == (3, 1, 4)


def test_images_of_which_one_concept_is_asked_say_nothing_of_binding() -> None:
    assert bound([kept("a cat", "cat"), kept("a dog", "dog")], 0.95) is None


def held(prompts: list[str], labels: list[tuple[str, str]]) -> Held:
    """Images of prompts that must stay, and the style that each shows before and after."""
    files = [{"before": f"before/{number}.png", "after": f"after/{number}.png"} for number in range(len(prompts))]
    outcomes = [
        {**dataclasses.asdict(kept(prompt, "cat")), "images": one} for prompt, one in zip(prompts, files, strict=True)
    ]
    seen: dict[str, Any] = {"before": {}, "after": {}}
    for one, (before, after) in zip(files, labels, strict=True):
        seen["before"][one["before"]], seen["after"][one["after"]] = {"style": before}, {"style": after}
    task = {"targets": [{"name": "noto", "synonyms": ["google"]}]}
    return Held(Path(), {"outcomes": outcomes, "task": task}, {}, seen=seen)


def test_what_is_drawn_unasked_is_counted_where_no_prompt_names_it() -> None:
    prompts = ["a cat", "a dog", "a fish", "a cat in blob style"]
    labels = [("noto", "blob"), ("noto", "noto"), ("blob", "blob"), ("blob", "noto")]
    (found,) = unasked(held(prompts, labels))
    assert found["before"] == {"noto": 2, "blob": 1}
    assert found["after"] == {"blob": 2, "noto": 1}
    # half of |2 - 1| + |1 - 2|, of three images
    assert found["moved"] == pytest.approx(1 / 3)
    assert (found["images"], found["changed"]) == (3, 1)


def test_a_prompt_that_names_the_target_by_a_synonym_asks_for_it() -> None:
    assert list(unasked(held(["a cat by Google"], [("blob", "blob")]))) == []
