"""`erase evidence` as its user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.evaluate.result import FILE
from erase.models import Model
from erase.run.store import SIDES, Run
from tests.evidence.packs import change, verified
from tests.recipes import command, refused


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verified(model, tmp_path_factory.mktemp("runs") / "Grüne Eule")


def test_a_pack_is_written_signed_and_checked(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(capsys, "evidence", folder, "--new-key").code == 0
    said = command(capsys, "evidence", "--check", "Grüne Eule-evidence", "--signer", "evidence.key.pub")
    assert said.code == 0, said.out
    assert "SOUND" in said.out
    assert "the edit PASSED" in said.out


def test_a_changed_pack_ends_with_3_and_says_what(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    command(capsys, "evidence", folder, "--out", tmp_path / "pack")
    change(tmp_path / "pack", FILE, lambda told: told["checks"][0].update(low=0.99))
    said = command(capsys, "evidence", "--check", tmp_path / "pack")
    assert said.code == 3
    assert "verdict: checks of result.json are not what its outcomes give" in said.out
    assert "REFUSED" in said.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--signer", "key.pub"), "belong to --check"),
        (("--key", "no.key"), "no.key is no private key"),
        (("--edit", "no.safetensors"), "is not the edit that"),
    ],
)
def test_what_is_given_wrongly_is_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, "evidence", folder, "--out", tmp_path / "pack", *more)
    assert not (tmp_path / "pack").exists()


def test_a_folder_that_is_no_pack_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no pack of evidence" in refused(capsys, "evidence", "--check", tmp_path)


def test_a_run_is_packed_with_its_edit_and_checked(
    capsys: pytest.CaptureFixture[str], finished: Run, tmp_path: Path
) -> None:
    assert command(capsys, "evidence", finished.folder, "--out", tmp_path / "pack").code == 0
    said = command(capsys, "evidence", "--check", tmp_path / "pack", "--edit", finished.edit_file)
    assert "SOUND" in said.out, said.out
    assert "the edit is not in the pack" not in said.out
    made = {path.relative_to(finished.folder).as_posix() for side in SIDES for path in finished.images(side).iterdir()}
    assert {path.relative_to(tmp_path / "pack").as_posix() for path in (tmp_path / "pack").glob("*/*.png")} == made
