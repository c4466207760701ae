"""A file written in large blocks, one of which is written while the next is filled.

Large files go past the page cache where the system and the file system let them: to fill the cache with gigabytes that
nobody reads again takes longer than the disk does, and pushes out what others need. Elsewhere they are written plainly.
"""

from __future__ import annotations

import errno
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

_BLOCK = 2**23  # bytes of a block
_SECTOR = 2**12  # what is written past the cache begins and ends at a multiple of so many bytes
_LARGE = 2**26  # bytes from which on a file goes past the cache


class BlockFile:
    """A new file of a size, to be closed by a `with` block, which raises what went wrong while it was written."""

    def __init__(self, path: Path, *, size: int) -> None:
        self._open = ExitStack()
        self._plain: BinaryIO = self._open.enter_context(path.open("wb", buffering=0))
        self._direct: BinaryIO | None = None
        if size >= _LARGE and hasattr(os, "O_DIRECT"):
            with suppress(OSError):  # a file system that cannot
                past = open(path, "r+b", buffering=0, opener=_past_the_cache)  # noqa: SIM115
                self._direct = self._open.enter_context(past)
        self._writer = self._open.enter_context(ThreadPoolExecutor(1))
        # Maps begin at a page, as what goes past the cache has to.
        self._block, self._other = mmap.mmap(-1, _BLOCK), mmap.mmap(-1, _BLOCK)
        self._filled = 0
        self._writing: Future[None] | None = None

    def write(self, data: memoryview | bytes) -> None:
        """Appends bytes."""
        with memoryview(data) as left:
            done = 0
            while done < len(left):
                if self._filled == _BLOCK:
                    self._pass_on()
                part = min(len(left) - done, _BLOCK - self._filled)
                self._block[self._filled : self._filled + part] = left[done : done + part]
                self._filled, done = self._filled + part, done + part

    def _pass_on(self) -> None:
        """Has the filled block written, after the one before it."""
        self._wait()
        self._writing = self._writer.submit(self._put, self._block, self._filled)
        self._block, self._other, self._filled = self._other, self._block, 0

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _put(self, block: mmap.mmap, count: int) -> None:
        done = 0
        while done < count:
            begin = self._plain.tell()
            direct = self._direct if (count - done) % _SECTOR == 0 and begin % _SECTOR == 0 else None
            with memoryview(block)[done:count] as part:
                try:
                    if direct is None:
                        done += self._plain.write(part)
                        continue
                    direct.seek(begin)
                    written = direct.write(part)
                except OSError as error:
                    if direct is None or error.errno != errno.EINVAL:
                        raise
                    self._direct, written = None, 0  # it can be opened so, but not written
            self._plain.seek(begin + written)
            done += written

    def __enter__(self) -> BlockFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is None:
                self._pass_on()
                self._wait()


def _past_the_cache(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_DIRECT)
