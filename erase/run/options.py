"""A method, an attack or an export from the words of a pipeline or of the command line: its name and its options."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from erase import registry
from erase.config import documents
from erase.errors import BadModel, BadOption, BadPlugin, EraseError

if TYPE_CHECKING:
    from pathlib import Path

    from erase.context import RunContext
    from erase.edit import Edit
    from erase.models import Model, Reads, Role
    from erase.task import Kind, Task

_log = logging.getLogger(__name__)
# What the papers' presets call the kinds of targets.
_PAPERS: Mapping[Kind, str] = {"style": "style", "object": "object", "unsafe": "nsfw", "identity": "identity"}

_log = logging.getLogger(__name__)
_ADVICE = {
    "next to nothing": "Try fewer keeps, or options that hold less, such as a smaller lamb or another protect.",
    "harmed": "Name more of what must stay, or try options that hold more, such as a larger lamb.",
}


def method_with(name: str, options: Mapping[str, Any]) -> Callable[[Model, Task], Edit]:
    """The method of a name with its options, each checked against the type it is declared with.

    `preset` among the options stands for those that a method's class lists under that name in `presets`, `paper` for
    those of its `paper`. Raises UnknownName, BadOption.
    """
    method: Any = registry.load("methods", name)
    fields = {field.name: field for field in dataclasses.fields(method) if field.init}
    chosen = _with_preset(_in_new_words(options, list(fields), owner=name), presets_of(method), owner=name)
    given = _checked(chosen, list(fields), kinds=_types(method, name), owner=name)
    nothing = dataclasses.MISSING
    needed = [key for key, one in fields.items() if one.default is nothing and one.default_factory is nothing]
    if missing := [key for key in needed if key not in given]:
        raise BadOption(f"option {missing[0]} of {name} is missing and has no default; give it.")
    made: Callable[[Model, Task], Edit] = method(**given)
    return made


def _types(owner: Any, name: str) -> dict[str, Any]:
    """The types that options are declared with; raises BadPlugin for one that cannot be read."""
    try:
        return typing.get_type_hints(owner)
    except (NameError, TypeError) as error:
        raise BadPlugin(
            f"an option of {name} has a type that cannot be read ({error}); import it in its file."
        ) from error


def method_for(name: str, options: Mapping[str, Any], *, model: Model, task: Task) -> Callable[[Model, Task], Edit]:
    """The method of a name for a model and a task, with what suits them where an option is left out.

    That is the model's own preset of the method for the targets' kind where it has one, else the paper's; neither where
    `preset` is among the options, of which `paper` is the paper's for the targets' kind. A model's preset is for one
    target, and its `further` is what each further one adds to its numbers. Raises UnknownName, BadOption, BadModel for
    presets of the model that cannot be used.
    """
    kind, presets = task.targets[0].kind, presets_of(registry.load("methods", name))
    if options.get("preset") == "paper" and _PAPERS[kind] in presets:
        return method_with(name, {**presets.get("paper", {}), **options, "preset": _PAPERS[kind]})
    if "preset" in options:
        return method_with(name, options)
    own = model.presets.get(name, {})
    if (chosen := own.get(kind) or own.get(task.domain)) is None:
        return method_with(name, {**options, "preset": _PAPERS[kind]} if _PAPERS[kind] in presets else options)
    try:
        chosen = _for_so_many(chosen, len(task.targets), owner=name)
        method_with(name, chosen)
    except BadOption as error:
        raise BadModel(f"the presets of {model.path.name}: {error}") from error
    return method_with(name, {**chosen, **options})


def _for_so_many(preset: Mapping[str, Any], count: int, *, owner: str) -> dict[str, Any]:
    """A model's preset for so many targets; raises BadOption for a `further` that is not of its numbers."""
    own = {key: value for key, value in preset.items() if key != "further"}
    further = preset.get("further", {})
    numbers = {key: value for key, value in own.items() if type(value) in (int, float)}
    if not isinstance(further, dict) or not further.keys() <= numbers.keys() or {*map(type, further.values())} - {int}:
        known = ", ".join(numbers)
        raise BadOption(f"further of {owner} is {further}; expected whole numbers to be added to some of {known}.")
    return own | {key: numbers[key] + more * (count - 1) for key, more in further.items()}


def presets_of(method: Any) -> Mapping[str, Mapping[str, Any]]:
    """A method's presets by name, `paper` among them where it is official whatever the kind."""
    paper = getattr(method, "paper", None)
    return {**getattr(method, "presets", {}), **({"paper": paper} if paper else {})}


def _in_new_words(options: Mapping[str, Any], valid: list[str], *, owner: str) -> Mapping[str, Any]:
    """The options without `expand` and `beside`, in whose place `phrasings` stands; each is told in a line."""
    old = [key for key in ("expand", "beside") if key in options and key not in valid]
    if not old or "phrasings" not in valid:
        return options
    told = "shared" if all(options[key] for key in old) else "own"
    _log.warning('option %s of %s is now "phrasings"; read as phrasings: %s.', " and ".join(old), owner, told)
    return {"phrasings": told, **{key: value for key, value in options.items() if key not in old}}


def _with_preset(
    options: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]], *, owner: str
) -> Mapping[str, Any]:
    """The options with those of the preset that they name, of which each may be given otherwise beside it.

    Raises BadOption for a preset that the method has not.
    """
    if "preset" not in options:
        return options
    given = options["preset"]
    if not isinstance(given, str) or given not in presets:
        known = f"expected one of {', '.join(presets)}" if presets else "the method has none"
        raise BadOption(f'option preset of {owner} is "{documents.shortened(str(given))}"; {known}.')
    return {**presets[given], **{key: value for key, value in options.items() if key != "preset"}}


def export_with(name: str, options: Mapping[str, Any]) -> Callable[[Model, Edit, Path], Path]:
    """The export of a name with its options: the keyword arguments of its function, checked against their types.

    Raises UnknownName, BadOption.
    """
    write: Any = registry.load("exports", name)
    parameters = inspect.signature(write).parameters.values()
    valid = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    return functools.partial(write, **_checked(options, valid, kinds=typing.get_type_hints(write), owner=name))


def _checked(options: Mapping[str, Any], valid: list[str], *, kinds: Mapping[str, Any], owner: str) -> dict[str, Any]:
    documents.check_plain(dict(options), source=f"the options of {owner}", error=BadOption)
    for key in options:
        if key not in valid:
            raise BadOption(documents.wrong_key(key, valid, where=f"the options of {owner}"))
    return {
        key: documents.check_value(value, kinds[key], key=f"option {key} of {owner}", error=BadOption)
        for key, value in options.items()
    }


def attack_with(name: str, options: Mapping[str, Any]) -> Any:
    """The attack of a name with its options, each checked against the type it is declared with.

    Raises UnknownName, BadOption.
    """
    attack: Any = registry.load("attacks", name)
    fields = [field.name for field in dataclasses.fields(attack) if field.init]
    return attack(**_checked(options, fields, kinds=_types(attack, name), owner=name))


def make_edit(
    method: Callable[[Model, Task], Edit],
    model: Model,
    task: Task,
    *,
    work: RunContext,
    strength: float = 1.0,
    earlier: Sequence[Edit] = (),
) -> Edit:
    """The method's edit at a strength, looked at: one that does next to nothing, or harms, is warned of.

    A method that takes long takes `work`, to tell how far it is and to keep what it has. `earlier`: edits of the same
    base that it is to be added to; with those that it was solved for together with it is looked at. Raises BadOption
    for a strength that is not finite, and where options leave a system of equations without a solution; ModelMismatch;
    what `Model.check_task` raises.
    """
    from erase.methods.closed_form.effect import effect_of
    from erase.methods.closed_form.joined import beside

    near = beside(method, model, task, earlier=earlier)
    model.check_task(near.whole)
    made = near.rest(_made(method, model, near.whole, work=work), method, model)
    edit = made.scaled(strength)
    if edit.info.effect is None:
        effect = effect_of(near.sum(edit), model, near.own)
        edit = dataclasses.replace(edit, info=dataclasses.replace(edit.info, effect=effect))
    if edit.info.effect is not None and edit.info.effect != made.info.effect:  # else it was told when it was made
        for one in edit.info.effect.problems:
            _log.warning(f"{edit.info.method} has {one.said}: {one.text}. {_ADVICE[one.kind]}")
    return edit


def _made(method: Callable[[Model, Task], Edit], model: Model, task: Task, *, work: RunContext) -> Edit:
    import torch

    from erase.edit import Edit

    linalg: Any = torch.linalg
    given: Any = {"work": work} if "work" in inspect.signature(method).parameters else {}
    try:
        made = method(model, task, **given)
    except EraseError:
        raise
    except linalg.LinAlgError as problem:
        raise BadOption(
            f"{registry.name_of(method)}: with these options its equations have no solution; give values nearer to the "
            "defaults, such as a lamb greater than 0."
        ) from problem
    except Exception as error:
        if type(method).__module__.startswith("erase."):
            raise
        raise BadPlugin(
            f"{registry.name_of(method)} has failed ({type(error).__name__}: {error}; ERASE_TRACEBACK=1 shows where)."
        ) from error
    if not isinstance(made, Edit):
        raise BadPlugin(f"{registry.name_of(method)} has returned a {type(made).__name__}; expected an erase.Edit.")
    return made


def join_training(method: Callable[[Model, Task], Edit], model: Model, task: Task) -> None:
    """Joins rank 0's training when distributed; rank 0 reports errors."""
    from erase.context import RunContext
    from erase.errors import TrainingFailed
    from erase.methods.training.distributed import trains_together
    from erase.methods.training.trainer import Trained

    if isinstance(method, Trained) and trains_together():
        with contextlib.suppress(TrainingFailed):
            _made(method, model, task, work=RunContext())


def check_can_edit(method: Callable[[Model, Task], Edit], model: Model) -> None:
    """Raises CannotEdit if the model lacks weights that the method needs, BadWeights if they are too coarse to train.

    A method's class says in `needs` which: pairs of what they read and of their role, or None for any role. Without
    it, weights that read the prompt's token states.
    """
    from erase.methods.training.trainer import Trained

    name = registry.name_of(method)
    needs: tuple[tuple[Reads, Role | None], ...] = getattr(method, "needs", (("tokens", None),))
    for reads, role in needs:
        model.sites_that_read(reads, role=role, method=name)
    if isinstance(method, Trained):
        model.check_unquantised(f"training by {name}")


def check_can_export(names: Iterable[str], model: Model) -> None:
    """Raises BadWeights if an export would write into a model's own coarse grid."""
    for name in (name for name in names if name in ("folder", "checkpoint")):
        model.check_unquantised(f"an export as {name}")
