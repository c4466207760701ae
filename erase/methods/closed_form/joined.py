"""A closed-form edit beside earlier ones: those of its own kind are solved for together with it, others are held.

Each closed-form edit moves what lies near its targets, and no later one can hold all of that. A sum of edits made one
by one therefore takes more and more along. With F a closed form with its options, T its task and T_1, ..., T_n the
tasks of earlier edits E_1, ..., E_n by the same F, the next edit is

    E = F(T_1, ..., T_n, T) - (E_1 + ... + E_n),

so that the sum of all of them is F of all targets at once, up to the rounding of float32.
"""

from __future__ import annotations

import functools
import json
import logging
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import torch

from erase.edit import Edit, TextMap, describe
from erase.methods.closed_form.phrasings import after
from erase.methods.closed_form.ridge import smaller
from erase.methods.training.trainer import Optimised
from erase.models import Model
from erase.registry import name_of
from erase.task import Task, folded

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beside:
    """What an edit beside earlier ones is made of.

    `own`: its own task, with what the held ones speak of among the prompts that must stay. `joined`: the earlier edits
    that it is solved for together with, on the model's own base. `whole`: the task of all of these.
    """

    own: Task
    whole: Task
    joined: tuple[Edit, ...]

    def rest(self, made: Edit, method: Any, model: Model) -> Edit:
        """What the edit of the whole task adds to the joined ones, in as few maps as it has."""
        if not self.joined:
            return made
        total = functools.reduce(operator.add, (edit.scaled(-1.0) for edit in self.joined), made)
        record = {**made.info.record, "joined": [edit.content for edit in self.joined]}
        info = replace(made.info, task=describe(method, model, self.own).task, record=record, beyond=total.info.beyond)
        return replace(total, info=info, text_maps=_merged(total.text_maps))

    def sum(self, edit: Edit) -> Edit:
        """The edit with those that it was solved for together with."""
        return functools.reduce(operator.add, self.joined, edit)


def beside(method: Any, model: Model, task: Task, *, earlier: Sequence[Edit]) -> Beside:
    """Which earlier edits of the same base an edit is solved for together with, and what of the others is held.

    Together: those of the same closed form with the same options, at strength 1, of targets of the same domain. A keep
    that one of them erased is told and left out. Raises ModelMismatch for one of another base.
    """
    alike = [_is_alike(edit, method, task) for edit in earlier]
    joined = tuple(edit.rebased(model) for edit, one in zip(earlier, alike, strict=True) if one)
    own = after(model, task, [asdict(edit.info) for edit, one in zip(earlier, alike, strict=True) if not one])
    tasks = [Task.from_dict(info["task"]) for edit in joined for info, _ in _parts(asdict(edit.info))]
    return Beside(own, _union(own, tasks), joined)


def _is_alike(edit: Edit, method: Any, task: Task) -> bool:
    """Whether one closed form with one set of options made all of an edit, for targets like the task's."""
    if isinstance(method, Optimised) or not is_dataclass(method) or isinstance(method, type) or edit.guidance:
        return False
    parts = list(_parts(asdict(edit.info)))
    wanted = (name_of(method), json.loads(json.dumps(asdict(method))), 1.0)
    return bool(parts) and all(
        (info["method"], info["options"], strength) == wanted and Task.from_dict(info["task"]).domain == task.domain
        for info, strength in parts
    )


def _parts(info: Mapping[str, Any], strength: float = 1.0) -> Iterator[tuple[Mapping[str, Any], float]]:
    """What an edit, or each part of a sum, says of itself, and its strength."""
    strength *= info.get("strength", 1.0)
    if info["task"].get("targets"):
        yield info, strength
        return
    for part in info.get("parts", ()):
        yield from _parts(part, strength)


def _union(task: Task, others: Iterable[Task]) -> Task:
    """All targets, the task's own in place of earlier ones of the same name, and what must stay that names none."""
    tasks = (*others, task)
    targets = {folded(target.name): target for one in tasks for target in one.targets}
    erased = Task(targets.values())
    for keep in task.keeps:
        if target := erased.named_by(keep.name):
            _log.warning('"%s" is to stay, but an earlier edit erased "%s": it stays erased.', keep.name, target.name)
    keeps = [keep for one in tasks for keep in one.keeps if erased.named_by(keep.name) is None]
    prompts = [text for one in tasks for text in one.prompts if erased.named_by(text) is None]
    return Task(targets.values(), keeps, prompts)


def _merged(maps: Sequence[TextMap]) -> tuple[TextMap, ...]:
    """The same maps with one for each set of weights, of a rank no larger than the width."""
    groups: dict[tuple[str, ...], list[TextMap]] = {}
    for one in maps:
        groups.setdefault(one.sites, []).append(one)
    found = []
    for sites, group in groups.items():
        ups, downs = torch.cat([one.up.double() for one in group], 1), torch.cat([one.down.double() for one in group])
        up, down = smaller(ups, downs)
        found.append(TextMap(up.float().contiguous(), down.float().contiguous(), sites))
    return tuple(found)
