"""What a pack is made of, and what it is not made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from erase.attacks.search.result import AttackResult, Attempt, Rate
from erase.errors import BadEvidence, RunConflict, ScoreFailed
from erase.evaluate.attacked import TOLD
from erase.evaluate.result import FILE, FIXED
from erase.evidence import pack as packing
from erase.evidence.check import check_pack
from erase.evidence.check_values import attacks, budget
from erase.evidence.pack import Beside, write_pack
from erase.evidence.stored import APART, EDIT, FIGURES, MANIFEST, Pack, hold
from erase.models import Model
from tests.evidence.packs import change, hash_anew, values


def test_a_pack_holds_every_image_that_was_looked_at(packs: tuple[Path, Path]) -> None:
    told = values(packs[0], FILE)
    assert len(told["images"]) == 64
    assert {path.relative_to(packs[0]).as_posix() for path in packs[0].glob("images/*")} == told["images"].keys()


def test_without_images_it_holds_their_hashes_and_is_still_checked(
    verifications: tuple[Path, Path], tmp_path: Path
) -> None:
    write_pack(verifications[0], tmp_path / "pack", Beside(images=False))
    assert not (tmp_path / "pack/images").exists()
    checked = check_pack(tmp_path / "pack")
    assert checked.problems == ()
    assert any("hashes alone" in note for note in checked.notes)


def test_the_plan_comes_before_the_result_and_the_pack_last(packs: tuple[Path, Path]) -> None:
    dates = values(packs[0], MANIFEST)["dates"]
    assert dates["fixed"] <= dates["result"] <= dates["packed"]


def test_known_attacks_that_were_not_run_are_named(packs: tuple[Path, Path]) -> None:
    said = values(packs[0], FIGURES)["not_attacked"]
    assert len(said) == 7
    assert any("fine-tuning" in one or "relearning" in one for one in said)


def test_an_attack_that_the_result_says_was_not_run_is_of_the_budget_and_one_that_is_left_out_is_not(
    pack: Path,
) -> None:
    change(pack, FIXED, lambda told: told["budget"].update(attacks={"tina": {"steps": 50}}))
    problems = list(budget(Pack(hold(pack), {})))
    assert problems == ["the budget that was fixed says ['tina'] for attacks, and [] were made"]
    change(pack, FILE, lambda told: told["not_shown"].append("the attack tina was not run: the base never draws noto."))
    assert list(budget(Pack(hold(pack), {}))) == []


@pytest.mark.parametrize(("name", "value"), [("searches", 1), ("budget", 90), ("prompts", 7), ("seed", 3)])
def test_an_attack_that_was_made_otherwise_than_planned_is_found(pack: Path, name: str, value: int) -> None:
    plan = {"budget": 80, "prompts": 8, "seed": 0, "searches": 4}
    tries = [Attempt(f"a cat {one}", one, False, False, False, False, False, 80, 4, search=one % 2) for one in range(8)]
    shown = Rate.of([True] * 8, [one.prompt for one in tries])
    told = AttackResult("p4d", tuple(tries), shown, 80, {"prompts": 8, "seed": 0, "searches": 4}).to_json()
    (pack / "attacks/p4d").mkdir(parents=True)
    (pack / "attacks/p4d/attack.json").write_text(json.dumps(told), encoding="utf-8")
    change(pack, FILE, lambda held: held.update(attacks=[{"title": "p4d", **{key: told[key] for key in TOLD}}]))
    for planned, problems in ((plan, []), (plan | {name: value}, ["the attack p4d was made otherwise than planned"])):
        change(pack, FIXED, lambda held, planned=planned: held["budget"].update(attacks={"p4d": planned}))
        said = [one for one in attacks(Pack(hold(pack), {})) if "headline" not in one]
        assert said == problems


def test_prompts_that_the_edit_was_made_on_are_a_limit_and_the_others_are_checked_by_themselves(pack: Path) -> None:
    change(pack, APART, lambda told: told["used"].append("a cat in noto style"))
    change(pack, APART, lambda told: told.update(by_text=["a cat in noto style"]))
    hash_anew(pack)
    figures = values(pack, FIGURES)
    assert (figures["apart"]["shared"], figures["apart"]["checks"][0]["n"]) == (1, 12)
    assert any(one.startswith("1 of 8 prompts are among those") for one in figures["limits"])
    assert check_pack(pack).problems == ()


def test_an_edit_that_was_not_verified_is_refused(verifications: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(BadEvidence, match="is not the edit that"):
        write_pack(verifications[0], tmp_path / "pack", Beside(edit=verifications[1] / EDIT))
    assert not (tmp_path / "pack").exists()


def test_an_edit_that_is_too_large_is_not_carried_and_still_compared(
    verifications: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "LARGEST", 1000)
    write_pack(verifications[0], tmp_path / "pack", Beside())
    assert not (tmp_path / "pack" / EDIT).exists()
    checked = check_pack(tmp_path / "pack")
    assert checked.problems == ()
    assert any("the edit is not in the pack" in note for note in checked.notes)
    assert check_pack(tmp_path / "pack", edit=verifications[0] / EDIT).problems == ()
    assert [name for name, _ in check_pack(tmp_path / "pack", edit=verifications[1] / EDIT).problems] == ["edit"]


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadEvidence, match=r"holds no result\.json"):
        write_pack(tmp_path, tmp_path / "pack", Beside())


def test_a_plan_of_an_older_version_is_refused_in_one_line(verifications: tuple[Path, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(verifications[0], tmp_path / "source"))
    change(source, FIXED, lambda told: told.pop("form"))
    with pytest.raises(BadEvidence, match="is of an older version"):
        write_pack(source, tmp_path / "pack", Beside())


def test_a_run_without_a_result_is_told_what_to_do(verifications: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copyfile(verifications[0] / EDIT, tmp_path / EDIT)
    with pytest.raises(BadEvidence, match=r"erase verify .*edit\.safetensors -o proof"):
        write_pack(tmp_path, tmp_path / "pack", Beside())


def test_a_result_that_was_changed_makes_no_pack(verifications: tuple[Path, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(verifications[0], tmp_path / "source"))
    change(source, FILE, lambda told: told["outcomes"][0].update(after=True))
    with pytest.raises(ScoreFailed, match="was changed since"):
        write_pack(source, tmp_path / "pack", Beside())


def test_a_pack_is_never_written_over_another(verifications: tuple[Path, Path], tmp_path: Path) -> None:
    write_pack(verifications[0], tmp_path / "pack", Beside())
    with pytest.raises(RunConflict, match="exists already"):
        write_pack(verifications[0], tmp_path / "pack", Beside())


def test_a_prompt_on_which_the_edit_was_made_is_told_and_left_out_of_the_figures_beside(
    packs: tuple[Path, Path], model: Model, verifications: tuple[Path, Path], tmp_path: Path
) -> None:
    """The tiny edit was made on its keep by name, which no prompt of the protocol is; so all of them are apart."""
    apart = values(packs[0], FIGURES)["apart"]
    assert (apart["known"], apart["shared"], apart["prompts"]) == (True, 0, 8)
    assert apart["by_state"] == model.fingerprint
    assert [check["n"] for check in apart["checks"]] == [16, 16]
