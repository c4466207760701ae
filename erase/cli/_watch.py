"""What a command shows while it works: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 5.0


class ShownProgress:
    """Tells on the standard error stream how far a run is; used as a context manager."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("  {task.description:<9}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[unit]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._begun: tuple[str, float] | None = None
        self._last_line = 0.0

    def __enter__(self) -> ShownProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self._tell_time()

    def begin(self, step: str, text: str) -> None:
        """One line: a step starts."""
        from diffusers.utils import logging

        logging.disable_progress_bar()  # no setting of the environment does
        self._tell_time()
        self._begun = step, time.monotonic()
        self._console.print(f"[bold cyan]{step:<9}[/] {text}", highlight=False)

    def _tell_time(self) -> None:
        """Tells, where it is listened to, what the step took that ends."""
        if self._begun is not None:
            _log.info("%s took %.1f s", self._begun[0], time.monotonic() - self._begun[1])
        self._begun = None

    def count(self, text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        """A bar that moves, or a line every few seconds where there is no terminal."""
        if self._console.is_terminal:
            if text not in self._tasks:
                self._tasks[text] = self._bars.add_task(text, total=total, unit=unit, note=note)
            self._bars.update(self._tasks[text], completed=done, total=total, note=note)
        elif done == total or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            said = f", {note}" if note else ""
            self._console.print(f"  {text}: {done} of {total} {unit}{said}", highlight=False)
