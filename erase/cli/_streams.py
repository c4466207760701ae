"""Output that neither a narrow encoding nor a reader who has gone can stop: a command goes on to its exit code."""

from __future__ import annotations

import codecs
import errno
import io
import sys
import unicodedata
from typing import Any, TextIO

_HANDLER = "erase.plain"
# What our own texts use beyond ASCII, for terminals and logs that have none of it.
_PLAIN = {"→": "->", "≥": ">=", "≤": "<=", "×": "x", "±": "+-", "▲": "^", "▼": "v", "–": "-", "—": "-", "•": "*"}


class _Outlet(io.RawIOBase):
    """A stream's bytes, dropped once nobody reads them any more, as after `| head`."""

    def __init__(self, stream: TextIO) -> None:
        buffer: Any = stream.buffer
        self._stream = stream  # which closes its file when it is let go
        self._raw = getattr(buffer, "raw", buffer)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def write(self, data: Any) -> int | None:
        try:
            written: int | None = self._raw.write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EINVAL):  # the second is what Windows says of a closed pipe
                raise
            return len(data)
        return written


def settle_streams() -> None:
    """Makes the process's two output streams write every text, and outlive their readers."""
    sys.stdout, sys.stderr = settled(sys.stdout), settled(sys.stderr)


def settled(stream: TextIO) -> TextIO:
    """The stream such that characters it has no code for are spelled otherwise, and a closed pipe is no error."""
    if not hasattr(stream, "buffer"):  # closed from the start, or no file at all
        return stream
    stream.flush()
    codecs.register_error(_HANDLER, _spell_otherwise)
    outlet = io.BufferedWriter(_Outlet(stream))
    return io.TextIOWrapper(outlet, stream.encoding, _HANDLER, line_buffering=stream is sys.stderr or stream.isatty())


def _spell_otherwise(error: UnicodeError) -> tuple[str, int]:
    """What is written in place of characters that an encoding lacks, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or _without_accent(letter) for letter in lost), error.end


def _without_accent(letter: str) -> str:
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"
