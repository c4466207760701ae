"""A pack's files and what they hold, read once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erase.config import documents
from erase.errors import BadEvidence, EraseError, ScoreFailed
from erase.evaluate.detect import Given
from erase.evaluate.gate import Limits, Outcome
from erase.evaluate.protocol import Case, Protocol, ProtocolForm
from erase.evaluate.questions import make_cases, open_set
from erase.evaluate.result import FILE, FIXED, limits_of, outcomes_of
from erase.evaluate.verify import task_from

SCHEMA = 1
MANIFEST, FIGURES, PAGE = "manifest.json", "figures.json", "evidence.html"
APART, CALIBRATION, SEEN = "apart.json", "calibration.json", "seen.json"
EDIT, SIGNATURE, SIGNER = "edit.safetensors", "pack.sig", "signer.pub"
UNHASHED = (MANIFEST, SIGNATURE)  # the manifest holds the hashes; the signature is of the manifest, too


@dataclass(frozen=True)
class Held:
    """What a pack, or a folder of which one is made, holds: its result and what was fixed before the first image.

    `calibrations` are by detector; `apart` what is known of prompts that were used to edit; `seen` what the detectors
    see in each image by domain, also unasked; each empty where there is none.
    """

    folder: Path
    result: Mapping[str, Any]
    fixed: Mapping[str, Any]
    calibrations: Mapping[str, Any] = field(default_factory=dict)
    apart: Mapping[str, Any] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Raises ScoreFailed."""
        return outcomes_of(self.result)

    @property
    def limits(self) -> Limits:
        """Raises ScoreFailed."""
        return limits_of(self.result)

    @property
    def protocol(self) -> Protocol:
        """The protocol as it was fixed; raises BadEvidence."""
        form = documents.check(self.fixed.get("form"), ProtocolForm, source=f"{FIXED}, form", error=BadEvidence)
        return Protocol(str(part(self.fixed, "protocol").get("name", "")), form)


def hold(folder: Path) -> Held:
    """What a folder holds; raises BadEvidence for a file that is missing, or is no JSON of keys and values."""
    optional = [read(folder / name) if (folder / name).is_file() else {} for name in (CALIBRATION, APART, SEEN)]
    held = Held(folder, read(folder / FILE), read(folder / FIXED), *optional)
    try:
        _ = held.outcomes, held.limits
    except ScoreFailed as error:
        raise BadEvidence(f"{folder / FILE}: {error}") from error
    return held


def read(path: Path) -> dict[str, Any]:
    """The keys and values in a file of JSON; raises BadEvidence."""
    text = documents.read_text(path, error=BadEvidence)
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadEvidence(f"{path} is no JSON that can be read ({error}).") from error
    if not isinstance(value, dict):
        raise BadEvidence(f"{path} holds {type(value).__name__}; expected keys and values.")
    return value


def part(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The keys and values at a key; none where it holds anything else."""
    found = value.get(name)
    return dict(found) if isinstance(found, Mapping) else {}


def attacks_of(held: Held) -> list[dict[str, Any]]:
    """What the result tells of each attack; nothing of a result of before there were any."""
    return [dict(one) for one in held.result.get("attacks") or ()]


def inside(folder: Path, name: str) -> Path:
    """A file's place in a pack; raises BadEvidence for a name that leads out of it."""
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise BadEvidence(f"{name} lies outside of the pack.")
    return place


def as_text(value: object) -> str:
    """The value as a pack's files hold it."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


Problems = Iterator[str]


@dataclass(frozen=True)
class Pack:
    """A pack to be checked: what it holds, its manifest, and what whoever checks it expects.

    `signer`: a public key that it must be signed by. `edit`: a file or folder that it must be about. `given`: what the
    detectors need, if they are to look at the images again.
    """

    held: Held
    manifest: Mapping[str, Any]
    signer: Path | None = None
    edit: Path | None = None
    given: Given | None = None

    @property
    def folder(self) -> Path:
        return self.held.folder

    @property
    def carries_images(self) -> bool:
        return self.manifest.get("images") == "carried"


def cases_of(pack: Pack) -> tuple[Case, ...] | None:
    """The questions that the protocol asks of the task; None where its prompt sets are not here as they were."""
    task = task_from(pack.held.result.get("task"))
    said, held = part(pack.held.fixed, "sets"), pack.held.protocol
    if task is None or set(said) != set(held.sets) or held.needs:
        return None
    try:
        if any(open_set(name, {}).sha256 != sha for name, sha in said.items()):
            return None
    except EraseError:
        return None
    return make_cases(held, task)
