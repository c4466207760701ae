"""An exported folder as it goes to the hub: only what its manifest lists, checked first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erase.errors import BadModel, BadOption
from erase.export.parts.manifest import verify
from erase.export.parts.recipe import MANIFEST
from erase.models.storage.weights import PICKLES

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class File:
    """A file to be sent, by its name in the folder, and its bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Plan:
    """What would be sent where."""

    folder: Path
    repository: str
    files: tuple[File, ...]


def plan(folder: Path, repository: str) -> Plan:
    """What an upload would send; touches no network.

    Raises BadModel if the folder is not what its manifest says or holds a pickle, BadOption.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise BadOption(f'"{repository}" is no repository; expected owner/name, such as me/my-model.')
    names = sorted([*verify(folder).files, MANIFEST])
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise BadModel(f"{folder / pickles[0]} is a pickle, which can run code when it is read; it is not published.")
    return Plan(folder, repository, tuple(File(name, (folder / name).stat().st_size) for name in names))


def upload(planned: Plan, *, private: bool, revision: str | None = None, pull_request: bool = False) -> str:
    """The commit's address; the repository is made if it does not exist. Raises BadOption with the hub's answer."""
    from huggingface_hub import HfApi

    hub: Any = HfApi()
    try:
        hub.create_repo(planned.repository, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=planned.repository,
            folder_path=planned.folder,
            allow_patterns=[file.name for file in planned.files],
            revision=revision,
            create_pr=pull_request,
            commit_message="Edited model",
        )
    except Exception as error:  # its network library, whose errors these are, is another one in each version
        raise BadOption(f"uploading to {planned.repository} failed: {' '.join(str(error).split())[:300]}") from error
    return str(commit)
