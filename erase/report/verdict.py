"""The sentence on top of a report: whether the targets are gone and the rest is not, by the gate's own bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from erase.effect import Effect
from erase.evaluate.gate import Verdict as Proved
from erase.evaluate.verified_facts import NOT_ATTACKED
from erase.report.findings import Findings
from erase.task import Task, names

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
    names, count = (
        names_of(findings.task),
        sum(findings.is_missing(s) for p in findings.pairs for s in (p.before, p.after)),
    )
    said = f"{count} image{' is' if count == 1 else 's are'} missing or damaged and count as the worst case."
    missing = (said,) if count else ()
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


def _is(task: Task) -> str:
    return "is" if len(task.names) == 1 else "are"


NOT_SHOWN = "not shown"  # the recipe's key under which a verification has its own


def not_shown(findings: Findings) -> tuple[str, ...]:
    """What the images do not show: the verification's own list, or what follows from the run."""
    own = findings.recipe.get(NOT_SHOWN)
    return tuple(map(str, own)) if own is not None else tuple(_of_run(findings))


def _of_run(findings: Findings) -> Iterator[str]:
    yield NOT_ATTACKED
    if findings.scores.verdicts:
        yield f"one judge ({findings.scores.protocol}): what it does not see, another may see"
    else:
        yield "not judged: nothing looked for the targets in the images"
    asked = {pair.after.row.prompt for pair in findings.pairs if pair.after.group == "erased"}
    bare = [
        target.name
        for target in findings.task.targets
        if not any(names(prompt, word) for word in target.synonyms for prompt in asked)
    ]
    if bare:
        yield f"not asked by synonyms: {', '.join(bare[:8])}{f' and {len(bare) - 8} more' if len(bare) > 8 else ''}"
    generate = findings.recipe.get("generate") or {}
    if generate.get("steps"):
        scheduler = generate.get("scheduler") or "the model's own scheduler"
        yield f"one sampler: {scheduler}, {generate['steps']} steps, guidance {generate.get('guidance')}"
    if findings.task.targets[0].kind in ("unsafe", "identity"):
        yield "what is shown of these concepts is not shown of others that they stand for"


def without_folders(value: Any) -> Any:
    """The value with each absolute path in it cut to its last part, so that a page to send names no user's folders."""
    if isinstance(value, Mapping):
        return {key: without_folders(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(part) for part in value]
    kinds: tuple[type[PurePath], ...] = (PurePosixPath, PureWindowsPath)
    if isinstance(value, str) and (path := next((k(value) for k in kinds if k(value).is_absolute()), None)):
        return path.name or value
    return value
