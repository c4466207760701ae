"""A pack that is to be checked, and what its checks share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erase.errors import EraseError
from erase.evaluate.detect import Given
from erase.evaluate.protocol import Case
from erase.evaluate.questions import make_cases, open_set
from erase.evaluate.verify import task_from
from erase.evidence.stored import Held, part

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
