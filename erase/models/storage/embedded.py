"""The folders of the models that the package carries, laid out where one borrows files from another."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from erase import registry
from erase.errors import CannotWrite
from erase.files import content_hash, full_disk_is_told, sha256_of

BORROWED = "borrowed.json"  # which files of a model's folder lie in that of another, by their paths in both


def embedded_folder(name: str) -> Path:
    """The diffusers folder of an embedded model.

    One that borrows files is laid out once in the user's cache, in huggingface_hub's folder for assets (`HF_HOME`), by
    hard links where the file system has them and by copies elsewhere. Raises CannotWrite, DiskFull.
    """
    home = registry.PACKAGE / "models" / name
    if not (home / BORROWED).is_file():
        return home
    sources = _sources(home)
    hashes = {file: sha256_of(source) for file, source in sorted(sources.items())}
    from huggingface_hub import constants

    place = Path(constants.HF_ASSETS_CACHE) / "erase" / "models" / content_hash(hashes)[:16]
    if not _is_whole(place / name, sources):
        _lay_out(sources, place / name)
    return place / name


def _sources(home: Path) -> dict[str, Path]:
    """Where each file of the whole folder lies in the package."""
    own = {file.relative_to(home).as_posix(): file for file in home.rglob("*") if file.is_file()}
    sources = {name: file for name, file in own.items() if name != BORROWED}
    borrowed: Mapping[str, str] = json.loads((home / BORROWED).read_text(encoding="utf-8"))
    for here, there in borrowed.items():
        source = home.parent / there
        files = [source] if source.is_file() else [file for file in source.rglob("*") if file.is_file()]
        sources |= {(Path(here) / file.relative_to(source)).as_posix(): file for file in files}
    return sources


def _is_whole(folder: Path, sources: Mapping[str, Path]) -> bool:
    """Whether a folder holds all files, at their sizes: caches are cleaned by age, file by file."""
    try:
        return all((folder / name).stat().st_size == source.stat().st_size for name, source in sources.items())
    except OSError:
        return False


def _lay_out(sources: Mapping[str, Path], folder: Path) -> None:
    """Builds a folder aside and renames it; of several processes that do so at once, the first one's stays."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_is_told(folder), tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            for name, source in sources.items():
                file = Path(aside) / "new" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, file)
                except OSError:  # another file system, or one without hard links
                    shutil.copyfile(source, file)
            if folder.exists() and not _is_whole(folder, sources):
                folder.rename(Path(aside) / "old")
            try:
                (Path(aside) / "new").rename(folder)
            except OSError:
                if not _is_whole(folder, sources):
                    raise
    except OSError as error:
        raise CannotWrite(
            f"{folder.name} is laid out in {folder.parent}, which cannot be written ({error.strerror}); "
            "set HF_HOME to a folder that can."
        ) from error
