"""Files that are whole or not there: atomic writes, folders built aside, one writer at a time, content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from erase.errors import CannotWrite, DiskFull, RunConflict

# What Windows opens as a device or cannot hold in a file's name, refused everywhere: what is exported travels.
_NO_NAME = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*[. ]|.*[<>:\"|?*\\\x00-\x1f].*")


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
def alone_at(target: Path) -> Iterator[None]:
    """Keeps other processes from writing the same file or folder, and removes what killed ones left half-written.

    Who holds the lock lives, on whatever host: the system lets go of it however a process ends. Raises RunConflict,
    which says who works there, CannotWrite for a name that not every system can hold.
    """
    import filelock

    check_name(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = (target.with_name(f".{target.name}.{kind}") for kind in ("lock", "owner"))
    held = filelock.FileLock(lock, timeout=0)
    try:
        held.acquire()
    except filelock.Timeout as error:
        who = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
        raise RunConflict(f"{who} is writing {target}; wait for its end, or name another place.") from error
    try:
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {began},", encoding="utf-8")
        clear_leftovers(target)
        yield
    finally:
        owner.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Windows removes it when it is let go of
            lock.unlink()
        held.release()


def is_held(lock: Path) -> bool:
    """Whether a living process holds the lock on a file, on whatever host."""
    import filelock

    if not lock.exists():
        return False
    held = filelock.FileLock(lock, timeout=0)
    try:
        held.acquire()
    except filelock.Timeout:
        return True
    held.release()
    return False


def clear_leftovers(target: Path) -> None:
    """Removes what writers of a file or folder left half-written; none may be at work."""
    for path in sorted(target.parent.iterdir()):
        name = path.name
        if name.startswith(f".{target.name}.") and name.endswith(".partial"):
            path.unlink(missing_ok=True)
        elif re.fullmatch(rf"{re.escape(target.name)}\.tmp-\d+", name):
            shutil.rmtree(path, ignore_errors=True)


def check_name(target: Path) -> None:
    """Raises CannotWrite if what is not there yet of a path has a name that Windows refuses."""
    new = takewhile(lambda path: not path.exists(), (target, *target.parents))
    if bad := [path.name for path in new if _NO_NAME.fullmatch(path.name)]:
        raise CannotWrite(
            f'"{bad[0]}" is a name that Windows cannot hold (a device, a sign such as : or ?, a dot or space at '
            "the end); give another."
        )


@contextlib.contextmanager
def replacing(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """A temporary sibling that becomes `path` when the block ends well and is removed otherwise.

    `alone`: no other process may write it meanwhile, which `alone_at` sees to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with full_disk_is_told(path), alone_at(path) if alone else contextlib.nullcontext():
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | str, *, alone: bool = False) -> None:
    """Writes a file under a temporary name and renames it; raises DiskFull, and what `alone_at` raises if `alone`."""
    with replacing(path, alone=alone) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def building_folder(target: Path) -> Iterator[Path]:
    """A temporary sibling folder, renamed to `target` when the block ends well and removed otherwise.

    Raises RunConflict if the target exists or another process builds it, CannotWrite, DiskFull.
    """
    partial = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    with full_disk_is_told(target), alone_at(target):
        if target.exists():
            raise RunConflict(f"{target} exists already; name another folder or remove it first.")
        try:
            partial.mkdir(parents=True)
            yield partial
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def time_of(path: Path) -> str:
    """When a file was last written, in UTC; empty if there is none."""
    if not path.is_file():
        return ""
    return datetime.fromtimestamp(int(path.stat().st_mtime), UTC).isoformat()


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
