"""Files are whole or not there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from erase.errors import CannotWrite, DiskFull, RunConflict
from erase.files import alone_at, building_folder, content_hash, replacing, sha256_of, write_atomically


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.txt", "one")
    write_atomically(tmp_path / "a" / "b.txt", "two")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "two"
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    write_atomically(tmp_path / "b.txt", "one")
    with pytest.raises(RuntimeError), replacing(tmp_path / "b.txt") as partial:
        partial.write_text("half", encoding="utf-8")
        raise RuntimeError("killed")
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "one"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="no space left while writing"), replacing(tmp_path / "b.txt") as partial:
        partial.write_text("half", encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_another_system_error_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), replacing(tmp_path / "b.txt"):
        raise PermissionError(errno.EACCES, "no")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), building_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("half", encoding="utf-8")
        raise RuntimeError("killed")
    assert not list(tmp_path.iterdir())
    with building_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("whole", encoding="utf-8")
    assert (tmp_path / "out" / "x").read_text(encoding="utf-8") == "whole"


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


HOLD = """\
import sys, time
from pathlib import Path
from erase.files import building_folder, replacing
with replacing(Path(sys.argv[1]) / "a.bin", alone=True) as file, building_folder(Path(sys.argv[1]) / "out") as folder:
    file.write_bytes(b"half")
    (folder / "half").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is writing a file and a folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_second_writer_is_told_who_is_writing_and_changes_nothing(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    who = rf"process {writer.pid} on \S+, since .* is writing .*wait for its end"
    with pytest.raises(RunConflict, match=who):
        write_atomically(tmp_path / "a.bin", b"mine", alone=True)
    with pytest.raises(RunConflict, match=who), building_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    write_atomically(tmp_path / "b.bin", b"mine", alone=True)  # another target is free


def test_what_a_killed_writer_left_is_removed_by_the_next(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    writer.kill()
    writer.wait()
    (tmp_path / f".a.bin.{os.getpid()}.partial").write_bytes(b"of this number, which the system has given again")
    (tmp_path / ".other.bin.1.partial").write_bytes(b"another target's")
    write_atomically(tmp_path / "a.bin", b"mine", alone=True)
    with building_folder(tmp_path / "out") as folder:
        (folder / "whole").write_bytes(b"mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.bin.1.partial", "a.bin", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]


def test_a_writer_is_not_taken_for_dead_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "kill")  # on Windows it would interrupt, and say nothing of another host
    with alone_at(tmp_path / "a.bin"):
        half = tmp_path / ".a.bin.999999999.partial"
        half.write_bytes(b"half")
        with pytest.raises(RunConflict, match="is writing"), alone_at(tmp_path / "a.bin"):
            pass
        assert half.exists()
    assert half.exists()


@pytest.mark.parametrize(
    "name", ["con", "NUL.safetensors", "aux.txt", "COM1", "a:b", "what?", "end.", "end ", 'a"b', "a|b"]
)
def test_a_name_that_windows_cannot_hold_is_refused_everywhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="Windows"):
        write_atomically(tmp_path / name, b"", alone=True)
    with pytest.raises(CannotWrite, match="Windows"), building_folder(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["console", "a.b-c_d", "nulls.txt", "Bild é", ".hidden"])
def test_other_names_are_taken(name: str, tmp_path: Path) -> None:
    write_atomically(tmp_path / name, b"x", alone=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
