"""A method from the words of a pipeline or of the command line: its name and its options."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from erase import documents, names
from erase.errors import BadOption

if TYPE_CHECKING:
    from erase.edit import Edit
    from erase.methods._work import Work
    from erase.models import Model, Reads, Role
    from erase.task import Task


def method_with(name: str, options: Mapping[str, Any]) -> Callable[[Model, Task], Edit]:
    """The method of a name with its options, each checked against the type it is declared with.

    Raises UnknownName, BadOption.
    """
    method: Any = names.load("methods", name)
    kinds = typing.get_type_hints(method)
    valid = [field.name for field in dataclasses.fields(method)]
    for key in options:
        if key not in valid:
            raise BadOption(documents.wrong_key(key, valid, where=f"the options of {name}"))
    checked = {
        key: documents.check_value(value, kinds[key], key=f"option {key} of {name}", error=BadOption)
        for key, value in options.items()
    }
    made: Callable[[Model, Task], Edit] = method(**checked)
    return made


def make_edit(method: Callable[[Model, Task], Edit], model: Model, task: Task, *, work: Work) -> Edit:
    """The method's edit; a method that takes long takes `work`, to tell how far it is and to keep what it has."""
    given: Any = {"work": work} if "work" in inspect.signature(method).parameters else {}
    return method(model, task, **given)


def check_can_edit(method: Callable[[Model, Task], Edit], model: Model) -> None:
    """Raises CannotEdit if the model lacks weights that the method needs.

    A method's class says in `needs` which: pairs of what they read and of their role, or None for any role. Without
    it, weights that read the prompt's token states.
    """
    name = type(method).__module__.rpartition(".")[2]
    needs: tuple[tuple[Reads, Role | None], ...] = getattr(method, "needs", (("tokens", None),))
    for reads, role in needs:
        model.sites_that_read(reads, role=role, method=name)
