"""Checks a pack: every hash, every figure from its stored values, what was fixed before, and the signature.

Each check yields what is wrong, in words. They overlap as little as may be: whoever changes one thing and writes every
hash anew is caught by the check of that thing; whoever changes everything to fit is caught by the signature alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from erase import registry
from erase.errors import BadEvidence, EraseError
from erase.evaluate.aggregate import aggregate
from erase.evaluate.protocol import Case, load_protocol
from erase.evaluate.questions import make_cases, open_set
from erase.evaluate.result import FILE, FIXED, alike, code_hash, plain, recompute
from erase.evaluate.statistics.corrected import Answers
from erase.evaluate.verify import distance, is_flat, task_from, threshold_curve
from erase.evidence import sign
from erase.evidence.apart import shared_by_text
from erase.evidence.calibrate import fits, told
from erase.evidence.figures import figures_of
from erase.evidence.pack import files_of, is_verified
from erase.evidence.page import page_of
from erase.evidence.stored import EDIT, FIGURES, MANIFEST, PAGE, SCHEMA, SIGNATURE, SIGNER, Held, hold, part, read
from erase.files import content_hash, sha256_of
from erase.sampling.pictures import read_picture

Problems = Iterator[str]
SHARES = {"judge", "classifier", "clip_zero_shot"}  # detectors whose scores of one image add up to 1


@dataclass(frozen=True)
class Pack:
    """A pack to be checked: what it holds, its manifest, and what whoever checks it expects.

    `signer`: a public key that it must be signed by. `edit`: a file or folder that it must be about.
    """

    held: Held
    manifest: Mapping[str, Any]
    signer: Path | None = None
    edit: Path | None = None

    @property
    def folder(self) -> Path:
        return self.held.folder

    @property
    def carries_images(self) -> bool:
        return self.manifest.get("images") == "carried"


@dataclass(frozen=True)
class Checked:
    """What a check found: problems by the check that found them, what could not be checked, and the pack's verdict."""

    problems: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    verdict: str
    signer: str
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if the pack is sound and its verdict is that the edit passed, else 3."""
        return 0 if not self.problems and self.verdict == "passed" else 3


def check_pack(folder: Path, *, signer: Path | None = None, edit: Path | None = None) -> Checked:
    """What is wrong with a pack; raises BadEvidence for a folder that is none, MissingExtra."""
    if not (folder / MANIFEST).is_file():
        raise BadEvidence(f"{folder} is no pack of evidence: it has no {MANIFEST}; `erase evidence RUN` writes one.")
    manifest = read(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise BadEvidence(f"{folder} has schema {manifest.get('schema')}; this version reads {SCHEMA}.")
    pack = Pack(hold(folder), manifest, signer, edit)
    problems: list[tuple[str, str]] = []
    for name, one in CHECKS.items():
        try:
            problems += [(name, text) for text in one(pack)]
        except (EraseError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            problems.append((name, f"cannot be checked: {' '.join(str(error).split())[:200]}"))
    try:
        verdict = "failed" if recompute(pack.held.result)[0].reasons else "passed"
    except EraseError:
        verdict = "unknown"
    return Checked(tuple(problems), tuple(_notes(pack)), verdict, sign.signer_of(folder), manifest)


def files(pack: Pack) -> Problems:
    """Every file is there and as the manifest says, and no other."""
    said, there = part(pack.manifest, "files"), files_of(pack.folder)
    for name in sorted(said.keys() | there.keys()):
        if name not in there:
            yield f"{name} is missing"
        elif name not in said:
            yield f"{name} is in the folder, and the manifest does not know it"
        elif said[name] != there[name]:
            yield f"{name} is not the file that was packed"


def seals(pack: Pack) -> Problems:
    """The result's digest is of its values, and it was made under what was fixed."""
    values = {key: value for key, value in pack.held.result.items() if key != "digest"}
    if content_hash(values) != pack.held.result.get("digest"):
        yield f"{FILE} was changed since it was written: its digest is of other values"
    if sha256_of(pack.folder / FIXED) != pack.held.result.get("fixed"):
        yield f"{FILE} was made under another {FIXED} than this one"


def dates(pack: Pack) -> Problems:
    """What was fixed comes first, then the result, then the pack; and the manifest says the same."""
    told_dates = part(pack.manifest, "dates")
    mine = (pack.held.fixed.get("date"), pack.held.result.get("date"), told_dates.get("packed"))
    if (told_dates.get("fixed"), told_dates.get("result")) != mine[:2]:
        yield "the manifest's dates are not those of the protocol and the result"
    if not all(isinstance(one, str) for one in mine) or list(mine) != sorted(map(str, mine)):
        yield f"the dates are in no order that can be: protocol {mine[0]}, result {mine[1]}, pack {mine[2]}"


def protocol(pack: Pack) -> Problems:
    """The protocol is the one whose hash the result names, and the package's own where it has that version."""
    held, fixed = pack.held.protocol, part(pack.held.fixed, "protocol")
    for place, value in (
        ("result's", part(pack.held.result, "hashes").get("protocol")),
        ("plan's", fixed.get("sha256")),
    ):
        if held.sha256 != value:
            yield f"the protocol's text is not the one of the {place} hash"
    if held.name in registry.known("protocols"):
        own = load_protocol(held.name)
        if own.form.version == held.form.version and own.sha256 != held.sha256:
            yield f"it calls itself {held.title}, which asks otherwise"
    if not alike(pack.held.result.get("protocol"), fixed):
        yield "the result names another protocol than the one that was fixed"


def limits(pack: Pack) -> Problems:
    """The limits are those that were fixed before the first image."""
    fixed = part(part(pack.held.fixed, "protocol"), "limits")
    if not alike(pack.held.result.get("limits"), fixed):
        yield "the limits are not those that were fixed before the first image"
    if any(not alike(value, fixed.get(name)) for name, value in asdict(pack.held.protocol.limits).items()):
        yield "the limits that were fixed are not the protocol's"


def subject(pack: Pack) -> Problems:
    """Plan and result are of the same base, edit and task."""
    hashes = part(pack.held.result, "hashes")
    for name, value in (("base", hashes.get("base")), ("edited", hashes.get("edited"))):
        if value != pack.held.fixed.get(name):
            yield f"the result is of another {name} model than the one that was planned: it is another run's"
    if not alike(pack.held.result.get("task"), pack.held.fixed.get("task")):
        yield "the result is of another task than the one that was planned: it is another run's"


def questions(pack: Pack) -> Problems:
    """The questions are all those that the protocol asks of the task, and no others."""
    cases = cases_of(pack)
    if cases is None:
        return
    asked = [(one.row.prompt, one.row.seed, one.role, one.aspect, one.concept) for one in cases]
    answered = [(one.prompt, one.seed, one.role, one.aspect, one.concept) for one in pack.held.outcomes]
    if asked != answered:
        lacking, more = len(set(asked) - set(answered)), len(set(answered) - set(asked))
        yield f"the questions are not the protocol's: {lacking} were left out, {more} are others"


def cases_of(pack: Pack) -> tuple[Case, ...] | None:
    """The questions that the protocol asks of the task; None where its prompt sets are not here as they were."""
    task = task_from(pack.held.result.get("task"))
    said, held = part(pack.held.fixed, "sets"), pack.held.protocol
    if task is None or set(said) != set(held.sets) or held.needs:
        return None
    try:
        if any(open_set(name, {}).sha256 != sha for name, sha in said.items()):
            return None
    except EraseError:
        return None
    return make_cases(held, task)


def budget(pack: Pack) -> Problems:
    """As much was asked as was planned."""
    said, outcomes = part(pack.held.fixed, "budget"), pack.held.outcomes
    done = {
        "questions": len(outcomes),
        "prompts": len({one.prompt for one in outcomes}),
        "seeds": len({one.seed for one in outcomes}),
        "images": 2 * len({(one.prompt, one.seed) for one in outcomes}),
        "sampler": plain(asdict(pack.held.protocol.sampler)),
        "attacks": part(pack.held.result, "attacks"),
    }
    for name, value in done.items():
        if not alike(value, said.get(name)):
            yield f"the budget that was fixed says {said.get(name)} for {name}, and {value} were made"
    if not alike(pack.held.result.get("sampler"), done["sampler"]):
        yield "the images were sampled otherwise than the protocol says"


def verdict(pack: Pack) -> Problems:
    """Checks, intervals, reasons and exit code follow from the outcomes."""
    for name, value in recompute(pack.held.result)[1].items():
        if not alike(value, pack.held.result.get(name)):
            yield f"{name} of {FILE} are not what its outcomes give"


def scores(pack: Pack) -> Problems:
    """What was seen agrees with the detector's scores, and curves and totals with both."""
    outcomes, held = pack.held.outcomes, pack.held
    forms = {role: held.protocol.detectors(role) for role in ("erased", "kept")}
    for one in outcomes:
        for side, seen, score in (("before", one.before, one.scores[0]), ("after", one.after, one.scores[1])):
            if seen is not None and score is not None and not _agree(seen, score, forms[one.role]):
                what = f"{one.concept} is said to be {'seen' if seen else 'not seen'}, its score is {score:.3f}"
                yield f'"{one.prompt}", seed {one.seed}, {side}: {what}'
    curves = {side: plain(threshold_curve(outcomes, number)) for number, side in enumerate(("before", "after"))}
    if not alike(curves, held.result.get("curves")):
        yield "the curves over thresholds are not what the scores give"
    cases, task = cases_of(pack), task_from(held.result.get("task"))
    if cases is not None and task is not None and len(cases) == len(outcomes):
        totals = aggregate(held.protocol.form.aggregation, cases, outcomes, task=task)
        given = plain([asdict(total) for total in totals])
        if not alike(given, list(held.result.get("totals", ()))[: len(given)]):
            yield "the totals are not what the outcomes give"


def _agree(seen: bool, score: float, forms: Any) -> bool:
    """Whether a yes or no can be that of a detector with such a score."""
    if len(forms) != 1:
        return True
    if forms[0].threshold is not None:
        return bool(seen == (score >= forms[0].threshold))
    return bool(seen or score <= 0.5 or forms[0].name not in SHARES)  # the highest of shares is seen


def figures(pack: Pack) -> Problems:
    """The pack's figures, corrected rates and limits are what its values give, and so is its page."""
    given = figures_of(pack.held)
    if not alike(given, read(pack.folder / FIGURES)):
        yield f"{FIGURES} is not what the stored values give"
    if pack.manifest.get("code") == code_hash():
        page = page_of(pack.held, given, {key: value for key, value in pack.manifest.items() if key != "files"})
        if (pack.folder / PAGE).read_text(encoding="utf-8") != page:
            yield f"{PAGE} does not show what the stored values give"


def images(pack: Pack) -> Problems:
    """Every image that was looked at is there as it was, and no question names another."""
    listed = part(pack.held.result, "images")
    named = {str(name) for one in pack.held.result["outcomes"] for name in part(one, "images").values()}
    if named != listed.keys():
        yield f"{len(named ^ listed.keys())} images are asked for and not listed, or listed and not asked for"
    if not pack.carries_images:
        return
    for name, sha in listed.items():
        place = inside(pack.folder, name)
        if sha and not place.is_file():
            yield f"{name} is missing"
        elif sha and sha256_of(place) != sha:
            yield f"{name} is not the image that was looked at"


def pixels(pack: Pack) -> Problems:
    """How far each pair of images differs, and whether one is flat, is what the result says."""
    if not pack.carries_images:
        return
    for one, told_one in zip(pack.held.outcomes, pack.held.result["outcomes"], strict=True):
        names = part(told_one, "images")
        before, after = (read_picture(inside(pack.folder, str(names.get(side)))) for side in ("before", "after"))
        found = distance(before, after) if before and after else None
        if not alike(found, one.distance) or (after is not None and is_flat(after)) != one.blank:
            yield f'"{one.prompt}", seed {one.seed}: its two images are not those that were compared'


def edit(pack: Pack) -> Problems:
    """The edit in the pack is the one that was verified, and so is the one that whoever checks expects."""
    if (pack.folder / EDIT).is_file() and not is_verified(pack.held, pack.folder / EDIT):
        yield f"{EDIT} is not the edit that was verified"
    if pack.edit is not None and not is_verified(pack.held, pack.edit):
        yield f"the pack is not of {pack.edit}: it is another run's"


def detectors(pack: Pack) -> Problems:
    """The detectors are those that were planned, and calibrations are of them."""
    if part(part(pack.held.result, "hashes"), "detectors") != part(pack.held.fixed, "detectors"):
        yield "the images were looked at by other detectors than were planned"
    for name, calibration in pack.held.calibrations.items():
        if not fits(pack.held, calibration) or calibration.get("detector") != name:
            yield f"the calibration of {name} is of another detector"
        for label, said in part(calibration, "labels").items():
            counts = Answers(**{key: said[key] for key in ("positives", "found", "negatives", "false")})
            if not alike(plain(told(counts)), said):
                yield f"sensitivity and specificity of {label} are not what the counts give"


def apart(pack: Pack) -> Problems:
    """Prompts that were also used to edit are told, as far as their text says."""
    used = pack.held.apart.get("used", [])
    if used and shared_by_text([one.prompt for one in pack.held.outcomes], used) != pack.held.apart.get("by_text"):
        yield "which prompts were also used to edit is told wrongly"


def signature(pack: Pack) -> Problems:
    """The signature is of these files by the key that the pack names, and by the one that is expected."""
    named, there = str(pack.manifest.get("signed") or ""), (pack.folder / SIGNATURE).is_file()
    if not (named or there or pack.signer):
        return
    if not there:
        yield (
            "it is not signed"
            if not named
            else f"its manifest says it is signed by {named[:16]}, and there is no signature"
        )
        return
    public = pack.folder / SIGNER
    if pack.signer is not None and sign.fingerprint_of(pack.signer.read_bytes()) != sign.signer_of(pack.folder):
        yield f"it is signed by {sign.signer_of(pack.folder)[:16]} and not by {pack.signer}"
    if sign.signer_of(pack.folder) != named:
        yield "its manifest names another signer than its key"
    if why := sign.verify_signature(pack.folder, pack.signer or public):
        yield f"its signature is not of these files by that key ({why})"


CHECKS: Mapping[str, Callable[[Pack], Problems]] = {
    one.__name__: one
    for one in (
        files,
        seals,
        dates,
        protocol,
        limits,
        subject,
        questions,
        budget,
        verdict,
        scores,
        figures,
        images,
        pixels,
        edit,
        detectors,
        apart,
        signature,
    )
}


def inside(folder: Path, name: str) -> Path:
    """A file's place in a pack; raises BadEvidence for a name that leads out of it."""
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise BadEvidence(f"{name} lies outside of the pack.")
    return place


def _notes(pack: Pack) -> Iterator[str]:
    """What could not be checked here."""
    if not pack.carries_images:
        yield "the pack holds the images' hashes alone: what they show was not looked at again"
    if cases_of(pack) is None:
        yield "whether the protocol's questions were all asked was not checked: its prompt sets are not here"
    if not (pack.folder / EDIT).is_file() and pack.edit is None:
        yield "the edit is not in the pack; --edit FILE compares it"
    if pack.manifest.get("code") != code_hash():
        yield f"it was written by other code ({pack.manifest.get('tool')}): its page was not drawn again"
    if not pack.manifest.get("signed"):
        yield "unsigned: whoever holds the pack can have written it"
    elif pack.signer is None:
        yield "compare the signer's fingerprint with what the signer told you, or give the public key by --signer"
