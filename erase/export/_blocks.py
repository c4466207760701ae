"""A file written in large blocks, each hashed and written beside what fills the next.

Large files go past the page cache where the file system lets them: to fill the cache with gigabytes that nobody reads
again takes longer than the disk does, and pushes out what others need.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

_BLOCK = 2**23  # bytes of a block
_BLOCKS = 5  # that are there at most: one is filled, the others wait to be hashed or written
_SECTOR = 2**12  # what is written past the cache begins and ends at a multiple of so many bytes
_LARGE = 2**26  # bytes from which on a file goes past the cache


class BlockFile:
    """A new file of a size, to be closed by a `with` block, which raises what went wrong while it was written.

    `digest` is, after the block, the SHA-256 of all bytes since `hash_from_here`.
    """

    def __init__(self, path: Path, *, size: int) -> None:
        self.digest = hashlib.sha256()
        self._open = ExitStack()
        self._plain = self._opened(path, os.O_CREAT | os.O_TRUNC)
        self._direct: int | None = None
        if size >= _LARGE and hasattr(os, "O_DIRECT"):
            with suppress(OSError):  # a file system that cannot
                self._direct = self._opened(path, os.O_DIRECT)
        self._writer, self._hasher = (self._open.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
        self._busy: deque[tuple[mmap.mmap, list[Future[None]]]] = deque()
        self._block, self._filled, self._begin = _new_block(), 0, 0
        self._hashed_from: int | None = None

    def hash_from_here(self) -> None:
        """Hashes all that is written from now on."""
        self._hashed_from = self._begin + self._filled

    def write(self, data: memoryview) -> None:
        """Appends bytes."""
        for room in self.room(len(data)):
            room[:], data = data[: len(room)], data[len(room) :]

    def room(self, count: int) -> Iterator[memoryview]:
        """Where the next bytes belong, a part at a time, each to be filled before the next is asked for."""
        while count:
            if self._filled == _BLOCK:
                self._pass_on()
            part = min(count, _BLOCK - self._filled)
            with memoryview(self._block)[self._filled : self._filled + part] as view:
                self._filled += part
                yield view
            count -= part

    def _pass_on(self) -> None:
        """Has the filled block hashed and written, and begins another."""
        self._submit()
        if len(self._busy) < _BLOCKS - 1:
            self._block = _new_block()
        else:
            self._block, waiting = self._busy.popleft()
            for one in waiting:
                one.result()
        self._begin, self._filled = self._begin + self._filled, 0

    def _submit(self) -> None:
        block, begin, filled = self._block, self._begin, self._filled
        waiting = [self._writer.submit(self._put, block, filled, begin)]
        if self._hashed_from is not None:
            skipped = max(0, self._hashed_from - begin)
            waiting.append(self._hasher.submit(self._hash, block, skipped, filled))
        self._busy.append((block, waiting))

    def _hash(self, block: mmap.mmap, begin: int, end: int) -> None:
        with memoryview(block)[begin:end] as part:
            self.digest.update(part)

    def _put(self, block: mmap.mmap, count: int, begin: int) -> None:
        done = 0
        while done < count:
            direct = self._direct if (count - done) % _SECTOR == 0 and (begin + done) % _SECTOR == 0 else None
            try:
                with memoryview(block)[done:count] as part:
                    done += os.pwrite(self._plain if direct is None else direct, part, begin + done)
            except OSError as error:
                if direct is None or error.errno != errno.EINVAL:
                    raise
                self._direct = None  # it can be opened so, but not written

    def _opened(self, path: Path, flags: int) -> int:
        found = os.open(path, os.O_WRONLY | flags, 0o666)
        self._open.callback(os.close, found)
        return found

    def __enter__(self) -> BlockFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is None:
                self._submit()
            for _, waiting in self._busy:
                for one in waiting:
                    if kind is None:
                        one.result()
                    else:
                        one.cancel()


def _new_block() -> mmap.mmap:
    """Memory that begins at a page, as what goes past the cache has to."""
    block = mmap.mmap(-1, _BLOCK)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            block.madvise(mmap.MADV_HUGEPAGE)
    return block
