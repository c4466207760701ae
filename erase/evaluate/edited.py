"""What is verified: a base model with an edit, or a model that was edited; and what either says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erase.config import documents
from erase.edit import Edit
from erase.edit_file import StoredEffect
from erase.effect import Effect
from erase.errors import BadEdit
from erase.evaluate.gate import Reason
from erase.foreign import edit_in
from erase.models import Model, open_model
from erase.task import Task


@dataclass(frozen=True)
class Edited:
    """What is verified: a base model with an edit, or a model that was edited; `task` is what it says it erases.

    `effect`: how far the edit moved what it was to, and what it was not to, when it was made. `path`: the file or
    folder that it was read from.
    """

    model: Model
    edit: Edit | None
    task: Task | None
    effect: Effect | None = None
    path: Path | None = None

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What was seen of the edit when it was made that speaks against it."""
        problems = self.effect.problems if self.effect else ()
        return tuple(Reason(one.kind, f"the edit has {one.said}: {one.text}") for one in problems)


def open_edited(path: Path, base: Model) -> Edited:
    """An edit's file, any other file of weights that change the base, or an edited model's folder.

    Raises BadEdit, BadModel, ModelMismatch if the edit was made for another base or the folder is of another family.
    """
    if path.is_file() and not (path.parent / "model_index.json").is_file():
        edit = edit_in(path, base)
        return Edited(base, edit, task_from(edit.info.task), edit.info.effect, path)
    if not path.is_dir():
        raise BadEdit(f"{path} does not exist; expected an edit's .safetensors or an edited model's folder.")
    model = open_model(path)
    if model.family != base.family:
        raise BadEdit(f"{path} is of the family {model.family} and the base of {base.family}; give its own base model.")
    said = _manifest(path)
    return Edited(model, None, task_from(said.get("task")), effect_from(said.get("effect")), path)


def task_from(value: Any) -> Task | None:
    """The task that an edit says it was made for; None where it says nothing."""
    if not isinstance(value, dict) or not value.get("targets"):
        return None
    return Task.from_dict(value)


def effect_from(value: Any) -> Effect | None:
    """What a manifest says was seen of its edit; None where it says nothing that can be read."""
    try:
        return Effect(**documents.check(value, StoredEffect, source="its effect", error=BadEdit).model_dump())
    except BadEdit:
        return None


def _manifest(path: Path) -> dict[str, Any]:
    """What an export of this tool says of its edit; nothing for other folders."""
    try:
        return dict(json.loads((path / "manifest.json").read_text(encoding="utf-8"))["edit"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
