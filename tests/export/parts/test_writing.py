"""Safetensors files that are written tensor by tensor: what is taken over, what is made, and their hash."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from erase.errors import BadWeights, DiskFull
from erase.export.parts.writing import HASH_KEY, Entry, write_tensors
from erase.models.storage.stored import read_header

TENSORS = {
    "a": torch.arange(3000, dtype=torch.float32).view(30, 100),
    "b": torch.arange(50).bfloat16(),
    "none": torch.empty(0),
}


def stored(path: Path) -> dict[str, Entry]:
    """Entries of tensors that lie in another file."""
    save_file(TENSORS, path)
    return {name: replace(Entry.of(value), stored=place(path, name)) for name, value in TENSORS.items()}


def place(path: Path, name: str) -> tuple[Path, int]:
    """Where a tensor's bytes lie."""
    header, begin = read_header(path)
    return path, begin + header[name]["data_offsets"][0]


def test_what_is_taken_over_is_the_same_as_what_is_made(tmp_path: Path) -> None:
    write_tensors(tmp_path / "copied", stored(tmp_path / "source"), metadata={})
    write_tensors(tmp_path / "made", {name: Entry.of(value) for name, value in TENSORS.items()}, metadata={})
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "made").read_bytes()
    assert all(torch.equal(value, TENSORS[name]) for name, value in load_file(tmp_path / "copied").items())


def test_a_large_file_is_written_without_what_only_some_systems_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pwrite", "O_DIRECT", "fork", "posix_fadvise"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    values = {str(number): torch.arange(number, 2**22 + 7 * number) for number in range(3)}  # 96 MB
    entries = {name: Entry.of(value) for name, value in values.items()}
    write_tensors(tmp_path / "one", entries, metadata={})
    taken_over = {name: replace(entry, stored=place(tmp_path / "one", name)) for name, entry in entries.items()}
    write_tensors(tmp_path / "other", taken_over, metadata={})
    assert filecmp.cmp(tmp_path / "one", tmp_path / "other", shallow=False)
    assert all(torch.equal(value, values[name]) for name, value in load_file(tmp_path / "other").items())


def test_what_fails_while_a_file_is_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for count in (10, 2**25):  # one block, and several
        with pytest.raises(DiskFull):
            write_tensors(tmp_path / "file", {"a": Entry.of(torch.ones(count))}, metadata={})
    assert list(tmp_path.iterdir()) == []


def test_the_hash_is_that_of_all_tensors_bytes_and_left_out_where_it_is_not_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_tensors(file, stored(tmp_path / "source"), metadata={})
    _, begin = read_header(file)
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()[HASH_KEY] == "0x" + hashlib.sha256(file.read_bytes()[begin:]).hexdigest()
    write_tensors(file, stored(tmp_path / "source"), metadata={"x": "y"}, hashed=False)
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata() == {"x": "y"}


def test_a_source_that_has_become_shorter_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    entries = stored(tmp_path / "source")
    os.truncate(tmp_path / "source", 4000)
    with pytest.raises(BadWeights, match="has changed while it was read"):
        write_tensors(tmp_path / "file", entries, metadata={})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_tensor_that_is_not_what_its_entry_says_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    wrong = Entry(torch.float32, (2,), lambda: torch.zeros(3))
    with pytest.raises(BadWeights, match=r"wrong is torch\.float32"):
        write_tensors(tmp_path / "file", {"fine": Entry.of(torch.ones(2)), "wrong": wrong}, metadata={})
    assert list(tmp_path.iterdir()) == []
