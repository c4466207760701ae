"""Where a command is to write, looked at before it works for hours."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from erase.errors import CannotWrite

_LONGEST = 255 - 24  # bytes of a name, what is added to it while a file is not whole being counted


def check_writable(target: Path) -> None:
    """Raises CannotWrite if no file or folder can be written at a path; leaves nothing there."""
    shown = str(target) if len(str(target)) <= 100 else f"{str(target)[:97]}..."
    if any(len(os.fsencode(part)) > _LONGEST for part in target.parts):
        raise CannotWrite(f"nothing can be written at {shown}: a name in it has more than {_LONGEST} bytes.")
    try:
        there = next(one for one in (target, *target.absolute().parents) if one.exists())
        folder = there.parent if there == target and there.is_file() else there
        if not folder.is_dir():
            raise CannotWrite(f"nothing can be written at {shown}: {folder} is a file; give a path of folders.")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise CannotWrite(
            f"nothing can be written at {shown} ({problem.strerror}); give another place by --out."
        ) from problem
