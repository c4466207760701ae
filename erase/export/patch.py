"""The edit alone, as one small safetensors file that says what it is."""

from __future__ import annotations

from pathlib import Path

from erase.edit import Edit
from erase.errors import RunConflict
from erase.models import Model


def patch(model: Model, edit: Edit, target: Path) -> Path:
    """The edit's file; raises RunConflict if another edit lies there, ModelMismatch if it is another model's."""
    edit.check_base(model.fingerprint)
    if target.suffix != ".safetensors":
        target = target.with_name(f"{target.name}.safetensors")
    if target.exists() and Edit.load(target).content != edit.content:
        raise RunConflict(f"{target} holds another edit; name another file or remove it first.")
    edit.save(target)
    return target
