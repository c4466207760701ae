"""Signatures by model-signing: which key, which files, and its own command."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from erase.errors import BadEvidence, CannotWrite, MissingExtra
from erase.evidence import sign
from erase.evidence.check import check_pack
from erase.evidence.pack import Beside, write_pack
from erase.evidence.stored import MANIFEST, SIGNATURE, SIGNER
from tests.evidence.packs import change


@pytest.fixture
def key(tmp_path: Path) -> Path:
    sign.new_key(tmp_path / "evidence.key")
    return tmp_path / "evidence.key"


@pytest.fixture
def signed(verifications: tuple[Path, Path], tmp_path: Path, key: Path) -> Path:
    write_pack(verifications[0], tmp_path / "pack", Beside(key=key))
    return tmp_path / "pack"


def test_a_signed_pack_is_sound_and_names_its_key(signed: Path, key: Path) -> None:
    public = key.with_name("evidence.key.pub")
    checked = check_pack(signed, signer=public)
    assert checked.problems == ()
    assert checked.signer == sign.fingerprint_of(public.read_bytes())


def test_the_librarys_own_command_verifies_it_and_refuses_a_changed_file(signed: Path, key: Path) -> None:
    places = ("--signature", signed / SIGNATURE, "--public_key", key.with_name("evidence.key.pub"))
    code = "from model_signing._cli import main; main()"
    line = [sys.executable, "-c", code, "verify", "key", *map(str, (signed, *places))]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0
    (signed / "result.json").write_bytes((signed / "result.json").read_bytes() + b" ")
    assert subprocess.run(line, capture_output=True, check=False).returncode != 0


def test_a_key_is_readable_by_its_owner_alone_and_never_overwritten(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(CannotWrite, match="never overwritten"):
        sign.new_key(key)


def test_a_pack_signed_by_another_key_is_refused_by_whoever_knows_the_right_one(
    verifications: tuple[Path, Path], tmp_path: Path, key: Path
) -> None:
    mine = sign.new_key(tmp_path / "mine.key")
    write_pack(verifications[0], tmp_path / "theirs", Beside(key=key))
    assert {name for name, _ in check_pack(tmp_path / "theirs", signer=mine).problems} == {"signature"}


def test_an_unsigned_pack_says_so_and_is_refused_where_a_signer_is_expected(
    packs: tuple[Path, Path], key: Path
) -> None:
    checked = check_pack(packs[0])
    assert checked.problems == ()
    assert any(note.startswith("unsigned") for note in checked.notes)
    public = key.with_name("evidence.key.pub")
    assert check_pack(packs[0], signer=public).problems == (("signature", "it is not signed"),)


def test_a_signature_cannot_be_taken_away(signed: Path) -> None:
    (signed / SIGNATURE).unlink()
    assert [name for name, _ in check_pack(signed).problems] == ["signature"]


def test_a_signature_taken_away_with_its_key_and_name_leaves_an_unsigned_pack(signed: Path) -> None:
    """Which is why whoever expects a signature names the key."""
    (signed / SIGNATURE).unlink()
    (signed / SIGNER).unlink()
    change(signed, MANIFEST, lambda told: told.update(signed="", files={**told["files"]}))
    assert any("missing" in text for _, text in check_pack(signed).problems)


def test_without_the_library_a_signature_is_asked_for_in_one_line_and_an_unsigned_pack_is_checked(
    packs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingExtra, match=r"erase\[sign\]"):
        sign.new_key(tmp_path / "new.key")
    assert check_pack(packs[0]).problems == ()


def test_a_signed_pack_is_not_sound_where_nobody_can_verify_it(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    assert [name for name, _ in check_pack(signed).problems] == ["signature"]


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused_in_one_line(
    verifications: tuple[Path, Path], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "no.key").write_bytes(content)
    with pytest.raises(BadEvidence, match="no private key that can sign"):
        write_pack(verifications[0], tmp_path / "pack", Beside(key=tmp_path / "no.key"))
    assert not (tmp_path / "pack").exists()
