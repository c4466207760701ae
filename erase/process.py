"""The process around a command: signals that end it in order, and output that nothing can stop."""

from __future__ import annotations

import _thread
import codecs
import errno
import io
import os
import signal
import sys
import threading
import unicodedata
from types import FrameType, TracebackType
from typing import Any, TextIO

_HANDLER = "erase.plain"
# What our own texts use beyond ASCII, for terminals and logs that have none of it.
_PLAIN = {"→": "->", "≥": ">=", "≤": "<=", "×": "x", "±": "+-", "▲": "^", "▼": "v", "–": "-", "—": "-", "•": "*"}


class Terminated(BaseException):
    """The process was asked to end by SIGTERM."""


class Signals:
    """Raises KeyboardInterrupt or Terminated where a signal meets the program; used as a context manager.

    One that comes while an object is being cleared away, where Python drops every error, is sent once more.
    """

    def __init__(self, *, interrupt: bool = True) -> None:
        self._handled = [signal.SIGINT, signal.SIGTERM] if interrupt else [signal.SIGTERM]
        self._came: int | None = None

    def code(self, code: int) -> int:
        """The exit code of a command that ended with this one: a signal's own, if one ended it."""
        return code if self._came is None or code in (0, 3) else 128 + self._came

    def __enter__(self) -> Signals:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        for number in self._handled:
            signal.signal(number, self._raise)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.unraisablehook = self._hook
        if isinstance(error, KeyboardInterrupt | Terminated):  # a second one, while the first was being told
            os._exit(128 + (self._came or signal.SIGINT))

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._came = number
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def _unraisable(self, dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt | Terminated):
            again = signal.Signals(self._came or signal.SIGINT)
            threading.Timer(0.01, _thread.interrupt_main, (again,)).start()  # at once, it would be dropped here, too
        else:
            self._hook(dropped)


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
    return "".join(
        _PLAIN.get(letter) or (unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?")
        for letter in lost
    ), error.end
