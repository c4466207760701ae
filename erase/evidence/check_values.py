"""Checks of a pack's values: each is computed anew from those that it follows from. Each yields what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from erase import registry
from erase.attacks.search.result import AttackResult
from erase.edit import Edit
from erase.evaluate.aggregate import aggregate
from erase.evaluate.attacked import FILE as ATTACK
from erase.evaluate.attacked import FOLDER, TOLD, headline_of, said_not_run
from erase.evaluate.protocol import DetectorForm, load_protocol
from erase.evaluate.result import FILE, alike, code_hash, plain, recompute
from erase.evaluate.statistics.corrected import Answers
from erase.evaluate.verify import task_from, threshold_curve
from erase.evidence.again import differences, look_again
from erase.evidence.apart import named_by, shared_by_text
from erase.evidence.calibrate import fits, told
from erase.evidence.figures import figures_of
from erase.evidence.page import page_of
from erase.evidence.stored import EDIT, FIGURES, PAGE, SEEN, Pack, Problems, attacks_of, cases_of, inside, part, read

SHARES = {"judge", "classifier", "clip_zero_shot"}  # detectors whose scores of one image add up to 1


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


def budget(pack: Pack) -> Problems:
    """As much was asked as was planned."""
    said, outcomes = part(pack.held.fixed, "budget"), pack.held.outcomes
    declared, lines = part(said, "attacks"), pack.held.result.get("not_shown") or ()
    unrun = [one for one in declared if any(line.startswith(said_not_run(one)) for line in lines)]
    done = {
        "questions": len(outcomes),
        "prompts": len({one.prompt for one in outcomes}),
        "seeds": len({one.seed for one in outcomes}),
        "images": 2 * len({(one.prompt, one.seed) for one in outcomes}),
        "attacks": sorted([*unrun, *(one["title"] for one in attacks_of(pack.held))]),
    }
    planned = said | {"attacks": sorted(declared)}
    for name, value in done.items():
        if not alike(value, planned.get(name)):
            yield f"the budget that was fixed says {planned.get(name)} for {name}, and {value} were made"
    sampler = plain(asdict(pack.held.protocol.sampler))
    for place, told_sampler in (("budget", part(said, "sampler")), ("result", part(pack.held.result, "sampler"))):
        known = {name: sampler.get(name) for name in told_sampler}  # an older version had fewer settings
        if not told_sampler or not alike(known, told_sampler):
            yield f"the {place} says that images were sampled otherwise than the protocol asks"


def attacks(pack: Pack) -> Problems:
    """Each attack's figures follow from its attempts, which took no more than was planned; the headline from all."""
    declared, told = part(part(pack.held.fixed, "budget"), "attacks"), attacks_of(pack.held)
    for one in told:
        title, plan = one["title"], part(declared, one["title"])
        stored = read(inside(pack.folder, f"{FOLDER}/{title}/{ATTACK}"))
        if not alike(AttackResult.from_json(stored).to_json(), stored):
            yield f"the figures of the attack {title} are not what its attempts give"
        if any(not alike(stored[key], one.get(key)) for key in TOLD):
            yield f"the result tells the attack {title} otherwise than its own file"
        told_of = ("budget", "prompts", "seed", *(("searches",) if plan.get("searches") else ()))
        if any(stored[key] != plan.get(key) for key in told_of):
            yield f"the attack {title} was made otherwise than planned"
        tries = stored["attempts"]
        if len(tries) > stored["prompts"] or any(each["evaluations"] > stored["budget"] for each in tries):
            yield f"the attack {title} has taken more than its budget"
    said = headline_of(told, pack.held.outcomes)
    if pack.held.result.get("headline", said) != said:
        yield "the headline is not what outcomes and attacks give"


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


def _agree(seen: bool, score: float, forms: Sequence[DetectorForm]) -> bool:
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


def again(pack: Pack) -> Problems:
    """The detectors, asked anew where that is wanted, say of the images what the result says."""
    if pack.given is None:
        return
    if not pack.carries_images:
        yield "the images are not in the pack, so that nobody can look at them again"
        return
    anew = look_again(pack.held, pack.given, folder=pack.folder)
    yield from differences(pack.held, anew)
    if pack.held.seen and not alike(anew.labels, pack.held.seen):
        yield f"{SEEN} is not what the detectors see"


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
    if used and (pack.folder / EDIT).is_file() and not set(named_by(Edit.load(pack.folder / EDIT).info)) <= set(used):
        yield "prompts by which the edit says that it was made are left out of those used to edit"
