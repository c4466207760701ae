"""Files that are either whole or not there: atomic writes, folders built aside, content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from erase.errors import DiskFull, RunConflict


@contextlib.contextmanager
def full_disk_is_told(target: Path) -> Iterator[None]:
    """Turns the system's 'no space left' into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"no space left while writing {target}; nothing was left half-written: "
            f"free some space and run the same command again."
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `path` when the block ends well and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with full_disk_is_told(path):
        try:
            yield partial
            _sync(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Writes a file under a temporary name and renames it; raises DiskFull."""
    with replacing(path) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def building_folder(target: Path) -> Iterator[Path]:
    """A temporary sibling folder, renamed to `target` when the block ends well and removed otherwise.

    Raises RunConflict if the target exists, DiskFull.
    """
    if target.exists():
        raise RunConflict(f"{target} exists already; name another folder or remove it first.")
    partial = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    with full_disk_is_told(target):
        try:
            partial.mkdir(parents=True)
            yield partial
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_if_there(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; "" if there is no such file that can be read."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def content_hash(value: object) -> str:
    """SHA-256 of a value's canonical JSON, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
