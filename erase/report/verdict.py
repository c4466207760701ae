"""The sentence on top of a report: whether the targets are gone and the rest is not, by the gate's own bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from erase.effect import Effect
from erase.evaluate.gate import Verdict as Proved
from erase.report.findings import Findings
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
# Ways of asking for what has nothing to do with the targets' kind.
KIN = "the others of its kind"
_ELSEWHERE = {"the objects", "the styles", "unrelated", "other domain", "same prompt"}
_OTHERS = {"object": "objects", "style": "styles"}


@dataclass(frozen=True)
class Verdict:
    """What a run has come to, in one sentence, and what a reader should know before believing it."""

    state: State
    headline: str
    remarks: tuple[str, ...]


def reach_verdict(findings: Findings) -> Verdict:
    """The verdict by the run's gate and by what was seen of the edit when it was made; open without a gate."""
    found, effect = _by_gate(findings, findings.proved), findings.edit.get("effect")
    problems = Effect(**effect).problems if effect else ()
    if not problems:
        return found
    headline = found.headline if found.state == "failed" else f"The edit has {problems[0].said}."
    said = (f"{one.kind[0].upper()}{one.kind[1:]}: when the edit was made, {one.text}." for one in problems)
    return Verdict("failed", headline, (*said, *found.remarks))


def _by_gate(findings: Findings, proved: Proved | None) -> Verdict:
    """The gate's verdict in a sentence, with its reasons; open where there is no gate."""
    names, missing = names_of(findings.task), tuple(_missing(findings))
    words = {"names": names, "is_": _is(findings.task), "other": _OTHERS[findings.other_domain]}
    if proved is None:
        text = f"{names} {'was' if _is(findings.task) == 'is' else 'were'} edited out; judge for yourself."
        said = f"UA not measured: {findings.scores.unmeasured}." if findings.scores.unmeasured else text
        return Verdict("open", said, ("This run has no gate, so nothing here is called a success.", *missing))
    asked = [check.name.removeprefix("kept: ") for check in proved.checks if check.name.startswith("kept: ")]
    kinds = {reason.kind for reason in proved.reasons}
    lost = {one for one in asked for reason in proved.reasons if reason.text.startswith(f"of {one}, ")}
    fallen = any(reason.kind == "over-erased" and reason.text.startswith("quality") for reason in proved.reasons)
    if kinds == {"too few images to tell"}:
        headline = f"Too few images to tell whether {names} {_is(findings.task)} gone and the rest stays."
        headline = f"UA not measured: {findings.scores.unmeasured}." if findings.scores.unmeasured else headline
    elif "nothing changed" in kinds:
        headline = f"Nothing changed: {names} {_is(findings.task)} drawn as before."
    elif not kinds or kinds & {"still there", "over-erased"}:
        gone, kin, rest = "still there" not in kinds, lost <= _ELSEWHERE, not (lost & _ELSEWHERE or fallen)
        headline = _HEADLINES[gone, kin, rest].format(**words)
        if asked == [KIN]:  # a run whose own prompts were judged among names of one kind
            headline = headline.replace("the rest stays", "others of its kind stay")
    else:
        headline = f"{proved.reasons[0].kind[0].upper()}{proved.reasons[0].kind[1:]}."
    told = (f"{one.kind[0].upper()}{one.kind[1:]}: {one.text}." for one in proved.reasons)
    return Verdict("failed" if proved.reasons else "passed", headline, (*missing, *told))


def names_of(task: Task) -> str:
    """The targets as a sentence names them: all of up to three, or how many there are."""
    names = [f"“{name}”" for name in task.names]
    if len(names) > 3:
        return f"{len(names)} concepts ({', '.join(names[:2])} and others)"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _missing(findings: Findings) -> Iterator[str]:
    count = sum(findings.is_missing(shot) for pair in findings.pairs for shot in (pair.before, pair.after))
    if count:
        yield f"{count} image{' is' if count == 1 else 's are'} missing or damaged and count as the worst case."


def _is(task: Task) -> str:
    return "is" if len(task.names) == 1 else "are"
