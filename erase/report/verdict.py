"""The sentence on top of a report: whether the targets are gone and the rest is not, by the gate's own bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from erase.effect import Effect
from erase.evaluate.metrics.figure import Figure
from erase.report.findings import Findings, before_of
from erase.report.reasons import kept_shares, reasons_of
from erase.report.table import number
from erase.task import Task

State = Literal["passed", "failed", "open"]
# Whether the targets are gone, the rest of their kind stays, the other domain stays.
_HEADLINES = {
    (True, True, True): "{names} {is_} gone; the rest stays.",
    (True, False, True): "{names} {is_} gone, but others of the kind went too.",
    (True, True, False): "{names} {is_} gone, but the {other} suffered.",
    (True, False, False): "{names} {is_} gone, and so is much else.",
    (False, True, True): "{names} {is_} still there.",
    (False, False, True): "{names} {is_} still there, and others of the kind suffered.",
    (False, True, False): "{names} {is_} still there, and the {other} suffered.",
    (False, False, False): "{names} {is_} still there, and the rest suffered.",
}
_OTHERS = {"object": "objects", "style": "styles"}


@dataclass(frozen=True)
class Verdict:
    """What a run has come to, in one sentence, and what a reader should know before believing it."""

    state: State
    headline: str
    remarks: tuple[str, ...]


def reach_verdict(findings: Findings) -> Verdict:
    """The verdict by the bounds of the run's gate and by what was seen of the edit when it was made."""
    found, effect = _by_bounds(findings), findings.edit.get("effect")
    problems = Effect(**effect).problems if effect else ()
    if not problems:
        return found
    headline = found.headline if found.state == "failed" else f"The edit has {problems[0].said}."
    said = (f"{one.kind[0].upper()}{one.kind[1:]}: when the edit was made, {one.text}." for one in problems)
    return Verdict("failed", headline, (*said, *found.remarks))


def _by_bounds(findings: Findings) -> Verdict:
    """The verdict by the bounds alone; open where the gate does not bind all three figures."""
    if findings.proved is not None:
        return _by_gate(findings)
    remarks = (*_remarks(findings), *_missing(findings))
    if unmeasured := findings.scores.unmeasured:
        return Verdict("failed" if "ua" in findings.bounds else "open", f"UA not measured: {unmeasured}.", remarks)
    if not {"ua", "ira"} <= set(findings.bounds):
        return _partial(findings, remarks)
    gone, kin, rest = (name not in findings.bounds or holds(findings, name) for name in ("ua", "ira", "cra"))
    if not gone and kin and rest and _unchanged(findings):
        headline = f"Nothing changed: {names_of(findings.task)} {_is(findings.task)} drawn as before."
    else:
        words = {"names": names_of(findings.task), "is_": _is(findings.task), "other": _OTHERS[findings.other_domain]}
        headline = _HEADLINES[gone, kin, rest].format(**words)
        if "cra" not in findings.bounds:
            headline = headline.replace("the rest stays", "others of its kind stay")
    reasons = reasons_of(findings)
    if gone and kin and rest:
        if not reasons:
            return Verdict("passed", headline, remarks)
        unproved = all(reason.kind == "too few images to tell" for reason in reasons)
        what = f"Too few images to tell whether {names_of(findings.task)} {_is(findings.task)} gone and the rest stays."
        headline = what if unproved else _sentence(reasons[0].kind)
    return Verdict("failed", headline, (*remarks, *_reasons(findings)))


def _by_gate(findings: Findings) -> Verdict:
    """The verdict that the gate has reached on the same pairs."""
    reasons, names = reasons_of(findings), names_of(findings.task)
    words = {"names": names, "is_": _is(findings.task), "other": _OTHERS[findings.other_domain]}
    kinds = {reason.kind for reason in reasons}
    if not reasons:
        return Verdict("passed", _HEADLINES[True, True, True].format(**words), tuple(_missing(findings)))
    if kinds == {"too few images to tell"}:
        headline = f"Too few images to tell whether {names} {_is(findings.task)} gone and the rest stays."
    elif kinds & {"still there", "over-erased"} and reasons[0].kind != "nothing changed":
        headline = _HEADLINES["still there" not in kinds, "over-erased" not in kinds, True].format(**words)
    else:
        headline = _sentence(reasons[0].kind)
    return Verdict("failed", headline, (*_missing(findings), *_reasons(findings)))


def holds(findings: Findings, name: str) -> bool:
    """Whether a figure of the after side reaches its bound; one that was not measured does not.

    Of what must stay the gate asks about the images that the base model drew right.
    """
    figure = findings.scores.find(name)
    if figure is None:
        return False
    value = kept_shares(findings).get(name, figure.value) if figure.value < findings.bounds[name] else figure.value
    return value >= findings.bounds[name]


def names_of(task: Task) -> str:
    """The targets as a sentence names them: all of up to three, or how many there are."""
    names = [f"“{name}”" for name in task.names]
    if len(names) > 3:
        return f"{len(names)} concepts ({', '.join(names[:2])} and others)"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _partial(findings: Findings, remarks: tuple[str, ...]) -> Verdict:
    """The verdict where the gate leaves some or all of the three figures unbound."""
    below = [name.upper() for name in findings.bounds if not holds(findings, name)]
    if below:
        headline = f"The gate has failed: {' and '.join(below)} below the bound."
        return Verdict("failed", headline, (*remarks, *_reasons(findings)))
    if findings.bounds:
        asked = " and ".join(name.upper() for name in findings.bounds)
        if reasons := reasons_of(findings):
            return Verdict("failed", _sentence(reasons[0].kind), (*remarks, *_reasons(findings)))
        return Verdict("passed", f"The gate has passed; it asks for {asked} only.", remarks)
    text = (
        f"{names_of(findings.task)} {'was' if _is(findings.task) == 'is' else 'were'} edited out; judge for yourself."
    )
    return Verdict("open", text, ("This run's gate sets no bounds, so nothing here is called a success.", *remarks))


def _remarks(findings: Findings) -> Iterator[str]:
    for name, bound in findings.bounds.items():
        figure = findings.scores.find(name)
        if figure is None or math.isnan(figure.value):
            yield f"{name.upper()} was not measured; at least {100 * bound:.0f} % is asked."
        elif not holds(findings, name):
            yield f"{name.upper()} is {number(figure)}; at least {100 * bound:.0f} % is asked{_was(findings, figure)}."
        elif figure.low < bound and name == "ua":
            yield (
                f"{name.upper()} reaches its bound of {100 * bound:.0f} %, but its interval begins at "
                f"{100 * figure.low:.1f} %: too few images ({figure.n}) to be sure."
            )


def _sentence(kind: str) -> str:
    return f"{kind[0].upper()}{kind[1:]}."


def _reasons(findings: Findings) -> Iterator[str]:
    """Why, as `erase verify` says it."""
    for reason in reasons_of(findings):
        yield f"{reason.kind[0].upper()}{reason.kind[1:]}: {reason.text}."


def _was(findings: Findings, figure: Figure) -> str:
    before = before_of(findings.scores, figure)
    return f" (before the edit it was {number(before)})" if before else ""


def _missing(findings: Findings) -> Iterator[str]:
    count = sum(findings.is_missing(shot) for pair in findings.pairs for shot in (pair.before, pair.after))
    if count:
        yield f"{count} image{' is' if count == 1 else 's are'} missing or damaged and count as the worst case."


def _unchanged(findings: Findings) -> bool:
    """Whether the targets are seen as often as before, as far as the interval tells."""
    after = findings.scores.find("ua")
    before = before_of(findings.scores, after) if after else None
    return after is not None and before is not None and after.value <= before.high


def _is(task: Task) -> str:
    return "is" if len(task.names) == 1 else "are"
