"""How far an edit moves what the weights that read a prompt put out: for its targets, and for what must stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from erase.edit import Edit
from erase.effect import Effect
from erase.methods.closed_form.states import prompt_pairs
from erase.models import Model
from erase.models.encoding import Encoding
from erase.models.identity import canonical
from erase.models.sites import Site
from erase.models.text import TextEncoder
from erase.task import Task

_Item = TypeVar("_Item")
PROMPTS = 8  # of the targets, and as many keeps: to encode a prompt of SDXL takes a second or two
ROWS = 256  # states of each
SITES = 4  # of each role


def effect_of(edit: Edit, model: Model, task: Task) -> Effect | None:
    """The look at an edit of weights that read the prompt, or of text encoders; None for other edits.

    With W the weights before, W' after, o, n and r the states of the targets' prompts, of what they become and of the
    keeps' (o' and r' after, where a text encoder is edited), each norm over sites and states in the root mean square:

        moved = |W' o' - W o| / |W (n - o)|        kept = |W' r' - W r| / |W (n - o)|

    At most `PROMPTS` prompts of the targets and as many keeps, spread evenly over all, some `ROWS` states of each and
    `SITES` weights of each role are looked at. Where targets read as their anchors do there is nothing to tell.
    """
    encoders = [text for text in model.texts if any(name.startswith(f"{text.encoder}.") for name in edit.touches)]
    sites, touched = _some_sites(model), set(edit.touches)
    if edit.guidance or not (encoders or any(site.name in touched for site in model.sites() if site.reads != "stream")):
        return None
    pairs = _spread(list(prompt_pairs(task.targets)), PROMPTS)
    keeps = _spread(task.kept, PROMPTS)
    texts = [*(old for old, _ in pairs), *(new for _, new in pairs), *keeps]
    before = model.encode(texts)
    after = _encoded_after(edit, model, texts) if encoders else before
    sums = torch.zeros(3, dtype=torch.float64)
    for site in sites:
        sums += _moves(edit, model.weight(site.name), site, states=_States.of(site, before, after, pairs=len(pairs)))
    moved, kept, apart = sums.sqrt().tolist()
    if not apart:
        return None
    return Effect("outputs", moved / apart, kept / apart if keeps else None)


@dataclass(frozen=True)
class _States:
    """What a site reads, [rows, width] each: of targets, of what they become, of keeps; before the edit and after."""

    old: Tensor
    new: Tensor
    keeps: Tensor
    old_after: Tensor
    keeps_after: Tensor

    @staticmethod
    def of(site: Site, before: Encoding, after: Encoding, *, pairs: int) -> _States:
        def read(encoding: Encoding, which: slice) -> Tensor:
            found = encoding.states if site.reads == "tokens" else encoding.pooled
            rows = torch.empty(0, site.width) if found is None else found[which].flatten(0, -2)
            return rows[:: max(1, len(rows) // ROWS)]

        old, new, keeps = slice(pairs), slice(pairs, 2 * pairs), slice(2 * pairs, None)
        return _States(read(before, old), read(before, new), read(before, keeps), read(after, old), read(after, keeps))


def _moves(edit: Edit, weight: Tensor, site: Site, *, states: _States) -> Tensor:
    """Mean squares of how far outputs move: the targets', the keeps'; and of the targets' way to their anchors."""
    change, weight = edit.change(site.name, weight)[:, : site.width].float(), weight[:, : site.width].float()
    moves = (
        states.old_after @ change.T + (states.old_after - states.old) @ weight.T,
        states.keeps_after @ change.T + (states.keeps_after - states.keeps) @ weight.T,
        (states.new - states.old) @ weight.T,
    )
    squares = [float(move.double().square().sum()) / max(len(move), 1) for move in moves]
    return torch.tensor(squares, dtype=torch.float64)


def _some_sites(model: Model) -> list[Site]:
    """A few of the weights that read a prompt, of each role, spread evenly over the network."""
    readers = [site for site in model.sites() if site.reads != "stream"]
    kinds = sorted({(site.role, site.reads) for site in readers})
    return [one for kind in kinds for one in _spread([s for s in readers if (s.role, s.reads) == kind], SITES)]


def _encoded_after(edit: Edit, model: Model, prompts: Sequence[str]) -> Encoding:
    """The prompts by the edited text encoders."""
    encoders = []
    for text in model.texts:
        encoder = TextEncoder(text, model.source)
        with torch.no_grad():
            for key, parameter in encoder.network.named_parameters():
                name = f"{text.encoder}.{canonical(key)}"
                if name in edit.touches:
                    parameter.copy_(edit.changed_tensor(name, parameter))
        encoders.append(encoder)
    return model.join(encoders, prompts)


def _spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most so many of the items, evenly chosen."""
    stride = max(len(items) / count, 1.0)
    return [items[int(number * stride)] for number in range(min(count, len(items)))]
