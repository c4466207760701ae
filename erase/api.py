"""The commands as functions: `erase.edit`, `erase.run`, `erase.verify` and `erase.export`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erase import registry
from erase.config import documents
from erase.errors import BadOption, BadPipeline, BadTask
from erase.task import Target, Task

if TYPE_CHECKING:
    from erase.edit import Edit
    from erase.evaluate.verify import Result
    from erase.models import Model
    from erase.run.store import Run

_log = logging.getLogger(__name__)


class _Silent:
    """A watch that tells nobody."""

    def begin(self, step: str, text: str) -> None:
        return

    def count(self, text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        return


def edit(
    model: Model | str | Path | Any,
    task: Task | Target | str | Iterable[Target | str],
    *,
    method: str | Path | Callable[[Model, Task], Edit] = registry.DEFAULT_METHOD,
    strength: float = 1.0,
    after: Sequence[Edit] = (),
    **options: Any,
) -> Edit:
    """The edit that takes a task's targets out of a model.

    `model`: a `Model`, or what `open_model` opens. `task`: a `Task`, or targets by name. `method`: one of `erase list
    methods`, the path of a file of yours, or a method with its options. `after`: earlier edits of the same model, which
    this one is to be added to. `options`: those of the method, such as `lamb=0.5`, where it is given by name. Raises
    what the method raises, BadOption, UnknownName, BadTask, ModelMismatch.
    """
    from erase.context import RunContext
    from erase.evaluate.label_samples import Observer
    from erase.run.options import check_can_edit, make_edit, method_for

    opened, asked = _opened(model), _task(task)
    if isinstance(method, str | Path):
        named = str(method)
        with registry.allowing([named] if registry.is_path(named) else []):
            chosen = method_for(named, options, model=opened, task=asked)
    elif options:
        raise BadOption("give a method with its options, or its name and the options, not both.")
    else:
        chosen = method
    check_can_edit(chosen, opened)
    work = RunContext(observe=Observer(opened))
    return make_edit(chosen, opened, asked, work=work, strength=strength, earlier=after)


def run(
    pipeline: str | Path | Mapping[str, Any] = "erase-style",
    *,
    out: str | Path | None = None,
    allow: Iterable[str | Path] = (),
    check: bool = True,
) -> Run:
    """The run of a pipeline, all of whose steps are done: edit, images, scores, grid, report, exports.

    `pipeline`: a name, a .yaml, or the mapping that one holds. `out`: the run's folder, `runs/<name>` if left out.
    `allow`: files of code that the pipeline may name. `check`: whether a failed gate raises GateFailed, as the command
    ends with 3. A run that was stopped goes on. Raises UnknownName, BadPipeline, RunConflict and what the steps raise.
    """
    from erase.models import quietly
    from erase.run import steps
    from erase.run.pipeline import Pipeline, load_pipeline, resolve
    from erase.run.store import run_in

    with registry.allowing(list(allow)), quietly():
        if isinstance(pipeline, Mapping):
            given = documents.check(dict(pipeline), Pipeline, source="the pipeline", error=BadPipeline)
        else:
            given = load_pipeline(str(pipeline))
        current = run_in(resolve(given), None if out is None else Path(out))
        for note in given.notes():
            _log.info("%s", note)
        if not current.is_begun:
            steps.check(current)
        with current.alone(), current.place.present():
            current.begin()
            steps.do_all(current, _Silent())
    if check:
        steps.check_gate(current)
    return current


def verify(
    edited: Edit | str | Path,
    base: Model | str | Path | Any = "emoji",
    *,
    protocol: str | Path | None = None,
    task: Task | Target | str | Iterable[Target | str] | None = None,
    given: Mapping[str, str | Path] | None = None,
    out: str | Path = "verify",
) -> Result:
    """The verdict on an edit, or on an edited model; its images, page, grid and `result.json` are left in `out`.

    `edited`: an `Edit`, its file, another file of changed weights, or an edited model's folder. `base`: the model
    before the edit. `protocol`: if left out, `gate` for the embedded model, else `any-KIND`. `task`: what was erased;
    the edit's own if left out. `given`: files and folders that the protocol needs, by name, such as `{"clip": FOLDER}`.
    `result.verdict.exit_code` is 0 if the images prove the erasure, and 3 if not.

    Raises BadEdit, BadTask, BadProtocol, ScoreFailed, RunConflict for a folder that holds another model's.
    """
    from functools import partial

    from erase.context import in_silence
    from erase.evaluate import verify as verifying
    from erase.evaluate.detect import Given
    from erase.evaluate.verified_facts import choose_protocol
    from erase.models import quietly
    from erase.report.verified import write_pages
    from erase.run.attacks import attack_all, check_attacks

    model, folder = _opened(base), Path(out)
    if isinstance(edited, str | Path):
        opened = verifying.open_edited(Path(edited), model)
    else:
        edited = edited.rebased(model)
        opened = verifying.Edited(model, edited, verifying.task_from(edited.info.task), edited.info.effect)
    asked = opened.task if task is None else _task(task)
    if asked is None:
        raise BadTask("the edit does not say what it erases; name it by `task`.")
    judged = Given({name: Path(path) for name, path in (given or {}).items()}, model.judge_folder)
    with quietly():
        chosen, judged = choose_protocol(str(protocol) if protocol else None, model, asked, given=judged)
        check_attacks(chosen.form.attack, asked, chosen.sampler, model=opened.model)
        what: dict[str, Any] = {"task": asked, "given": judged, "folder": folder}
        attack = partial(attack_all, model, opened, chosen, **what, report=in_silence) if chosen.form.attack else None
        result = verifying.verify(model, opened, chosen, **what, attack=attack)
        write_pages(result)
    return result


def export(
    edit: Edit, model: Model | str | Path | Any, *, to: str = "folder", path: str | Path, **options: Any
) -> Path:
    """Where an edit, or the model with it, was written.

    `to`: one of `erase list exports`; `options` are its own. A model that was opened from a loaded pipeline is written
    from what is in memory. Raises UnknownName, BadOption and what the export raises.
    """
    from erase.run import steps

    return steps.export(to, _opened(model), edit, target=Path(path), options=options)


def _opened(model: Any) -> Model:
    from erase.models import Model, open_model

    return model if isinstance(model, Model) else open_model(model)


def _task(task: Task | Target | str | Iterable[Target | str]) -> Task:
    if isinstance(task, Task):
        return task
    return Task([task] if isinstance(task, str | Target) else task)
