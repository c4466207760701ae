"""SIGINT and SIGTERM: each ends the command in order, with what is half-written cleared away."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


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
