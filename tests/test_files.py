"""Files are whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from erase.errors import DiskFull, RunConflict
from erase.files import building_folder, content_hash, replacing, sha256_of, write_atomically


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.txt", "one")
    write_atomically(tmp_path / "a" / "b.txt", "two")
    assert (tmp_path / "a" / "b.txt").read_text() == "two"
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    write_atomically(tmp_path / "b.txt", "one")
    with pytest.raises(RuntimeError), replacing(tmp_path / "b.txt") as partial:
        partial.write_text("half")
        raise RuntimeError("killed")
    assert (tmp_path / "b.txt").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="no space left while writing"), replacing(tmp_path / "b.txt") as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_another_system_error_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), replacing(tmp_path / "b.txt"):
        raise PermissionError(errno.EACCES, "no")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), building_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("half")
        raise RuntimeError("killed")
    assert not list(tmp_path.iterdir())
    with building_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("whole")
    assert (tmp_path / "out" / "x").read_text() == "whole"


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RunConflict, match="exists already"), building_folder(tmp_path / "out"):
        pass


def test_a_content_hash_ignores_the_order_of_keys_only() -> None:
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash({"a": [1, 2]}) != content_hash({"a": [2, 1]})


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
