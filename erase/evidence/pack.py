"""Writes a pack: one folder with a result, what it rests on, its figures, a page, and a manifest of hashes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import erase
from erase.edit import Edit
from erase.errors import BadEvidence, EraseError
from erase.evaluate.attacked import FILE as ATTACK
from erase.evaluate.attacked import FOLDER
from erase.evaluate.detect import Given
from erase.evaluate.result import FILE, FIXED, check_result, code_hash, plain
from erase.evidence import sign
from erase.evidence.again import can_look, differences, look_again
from erase.evidence.apart import compared
from erase.evidence.calibrate import carried_for, fits
from erase.evidence.figures import figures_of
from erase.evidence.page import page_of
from erase.evidence.stored import (
    APART,
    CALIBRATION,
    EDIT,
    FIGURES,
    MANIFEST,
    PAGE,
    SCHEMA,
    SEEN,
    SIGNER,
    UNHASHED,
    Held,
    as_text,
    attacks_of,
    hold,
    part,
)
from erase.files import building_folder, full_disk_is_told, sha256_of
from erase.models import Model

LARGEST = 256 << 20  # bytes of an edit that a pack carries; of a larger one, and of a model, it has the hashes


@dataclass(frozen=True)
class Beside:
    """What a pack gets beside a result: the edit's file, calibrations by detector, the base model, a key to sign by.

    `images`: whether it carries the images, or their hashes alone. `given`: what the detectors need to look at the
    images once more, for what they see unasked; `progress` is told how many they have.
    """

    edit: Path | None = None
    calibrations: Mapping[str, Any] = field(default_factory=dict)
    model: Model | None = None
    key: Path | None = None
    images: bool = True
    given: Given | None = None
    progress: Callable[[int, int], None] | None = None


def write_pack(source: Path, out: Path, beside: Beside) -> Held:
    """The pack of a folder that `erase verify` or `erase run` left, written at `out`.

    Raises BadEvidence for a folder without a result, an edit that is not the one that was verified, or a model that is
    not its base; ScoreFailed for a result that was changed; RunConflict if `out` exists; MissingExtra, DiskFull.
    """
    if not (source / FILE).is_file() or not (source / FIXED).is_file():
        raise BadEvidence(
            f"{source} holds no {FILE} with its {FIXED}; give a run that was scored, or what `erase verify` left"
            + (f": `erase verify {source / EDIT} -o proof`." if (source / EDIT).is_file() else ".")
        )
    check_result(source / FILE)
    held = hold(source)
    if not {"form", "budget", "date"} <= held.fixed.keys():
        raise BadEvidence(f"{source / FIXED} is of an older version, which wrote down less; verify the model anew.")
    edit = beside.edit or next((one for one in [source / EDIT] if one.is_file()), None)
    check_subject(held, edit, beside.model)
    for name, calibration in beside.calibrations.items():
        if not fits(held, calibration):
            raise BadEvidence(
                f"a calibration is of another {name} than {source} was judged by, or of another threshold; calibrate "
                "the very same detector."
            )
    public = sign.public_half(beside.key) if beside.key else b""
    with building_folder(out) as folder, full_disk_is_told(out):
        for name in (FILE, FIXED):
            shutil.copyfile(source / name, folder / name)
        if edit is not None and edit.is_file() and edit.stat().st_size <= LARGEST:
            shutil.copyfile(edit, folder / EDIT)
        for one in attacks_of(held):
            place = f"{FOLDER}/{one['title']}/{ATTACK}"
            if not (source / place).is_file() or sha256_of(source / place) != one["sha256"]:
                raise BadEvidence(f"{source / place} is not the attack that the result tells of; attack anew.")
            (folder / place).parent.mkdir(parents=True)
            shutil.copyfile(source / place, folder / place)
        if beside.images:
            _copy_images(held, folder)
        calibrations = carried_for(held) | dict(beside.calibrations)
        told = {CALIBRATION: calibrations, APART: _apart(held, edit, beside.model), SEEN: _seen(held, beside)}
        for name, value in told.items():
            if value:
                (folder / name).write_text(as_text(value), encoding="utf-8")
        if public:
            (folder / SIGNER).write_bytes(public)
        seal(folder, images=beside.images, date=datetime.now(UTC).isoformat(timespec="seconds"))
        if beside.key:
            sign.sign(folder, beside.key)
    return hold(out)


def seal(folder: Path, *, images: bool, date: str) -> None:
    """Writes what follows from a pack's other files: its figures, its page, and last the manifest."""
    held, signed = hold(folder), sign.signer_of(folder)
    (folder / FIGURES).write_text(as_text(figures_of(held)), encoding="utf-8")
    head = {
        "schema": SCHEMA,
        "kind": "evidence of an erasure",
        "tool": f"erase {erase.__version__}",
        "code": code_hash(),
        "dates": {"fixed": held.fixed.get("date"), "result": held.result.get("date"), "packed": date}
        | ({"late": True} if held.fixed.get("late") else {}),
        "images": "carried" if images else "hashes alone",
        "signed": signed,
    }
    (folder / PAGE).write_text(page_of(held, figures_of(held), head), encoding="utf-8")
    (folder / MANIFEST).write_text(as_text(head | {"files": files_of(folder)}), encoding="utf-8")


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a pack by its name, but of the manifest and the signature."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    return {name: sha256_of(path) for path, name in names.items() if name not in UNHASHED}


def is_verified(held: Held, edit: Path) -> bool:
    """Whether a file or folder is what was verified: by its bytes, or as an edit of this tool by what it does."""
    hashes = part(held.result, "hashes")
    files = part(hashes, "files")
    if edit.is_file() and sha256_of(edit) in files.values():
        return True
    if edit.is_dir():
        return bool(files) and all(
            (edit / name).is_file() and sha256_of(edit / name) == sha for name, sha in files.items()
        )
    try:
        return Edit.load(edit).content == part(hashes, "edited").get("edit")
    except EraseError:
        return False


def check_subject(held: Held, edit: Path | None, model: Model | None) -> None:
    """Raises BadEvidence for an edit or a base model that is not the one that was verified."""
    if edit is not None and not is_verified(held, edit):
        raise BadEvidence(f"{edit} is not the edit that {held.folder} verified; give that one, or verify this one.")
    base = part(part(held.result, "hashes"), "base").get("fingerprint")
    if model is not None and model.fingerprint != base:
        raise BadEvidence(f"{model.path.name} is not the base model that {held.folder} verified; give that one.")


def _copy_images(held: Held, folder: Path) -> None:
    for name, sha in part(held.result, "images").items():
        if not sha:  # it was missing when it was looked at, and the result says so
            continue
        if not (held.folder / name).is_file() or sha256_of(held.folder / name) != sha:
            raise BadEvidence(
                f"{held.folder / name} is not the image that was looked at, or is not there; make it again by "
                "the same command, or give --without-images."
            )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(held.folder / name, folder / name)


def _seen(held: Held, beside: Beside) -> dict[str, Any]:
    """What the detectors see in each image by domain; nothing where they cannot look.

    Raises BadEvidence if they do not say what the result says.
    """
    if beside.given is None or not can_look(held, beside.given):
        return {}
    anew = look_again(held, beside.given, folder=held.folder, progress=beside.progress)
    if said := next(differences(held, anew), None):
        raise BadEvidence(f"{held.folder}: {said} than the result; verify the model anew.")
    return dict(plain(anew.labels)) if any(anew.labels.values()) else {}


def _apart(held: Held, edit: Path | None, model: Model | None) -> dict[str, Any]:
    """What is known of the prompts that the edit was made on; nothing of an edit of others."""
    try:
        info = Edit.load(edit).info if edit is not None else None
    except EraseError:
        info = None
    return compared(info, [one.prompt for one in held.outcomes], model) if info is not None else {}
