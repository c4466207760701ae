"""What a report leaves open, by rule; and its recipe for other eyes, without paths of the machine it was made on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from erase.evaluate.verified_facts import NOT_ATTACKED
from erase.report.findings import Findings
from erase.task import names

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
