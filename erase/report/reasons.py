"""Why a run has failed, in the words of `erase verify`: the gate's reasons from the run's own pairs."""

from __future__ import annotations

from collections.abc import Iterator

from erase.evaluate.gate import Limits, Outcome, Reason, Role, Verdict, judge
from erase.evaluate.images import ScoredImage
from erase.evaluate.verify import distance, is_flat
from erase.report.findings import Findings
from erase.report.grid import Pair
from erase.report.matrices import NO_IMAGE, saw
from erase.sampling.pictures import read_picture
from erase.task import same

ASPECTS = {"erased": "its own prompts", "kept": "the others of its kind"}


def verdict_of(findings: Findings) -> Verdict:
    """What the gate says of the run's pairs by the run's bounds: all that is still there, lost, broken or unproved.

    It asks of each bound that its figure's interval lies beyond it. Without a judge or bounds nothing is asked.
    """
    bounds = findings.bounds
    if not findings.scores.verdicts or not bounds:
        return Verdict((), ())
    by_aspect = {ASPECTS["kept"]: bounds.get("ira", 0.0), f"the {findings.other_domain}s": bounds.get("cra", 0.0)}
    return judge(list(outcomes(findings)), Limits(gone=bounds.get("ua", 0.0), by_aspect=by_aspect))


def kept_shares(findings: Findings) -> dict[str, float]:
    """IRA and CRA as the gate asks for them: over the images that the base model drew right."""
    found = {check.name: check.value for check in findings.gate.checks}
    names = {"ira": f"kept: {ASPECTS['kept']}", "cra": f"kept: the {findings.other_domain}s"}
    return {name: found[check] for name, check in names.items() if check in found}


def reasons_of(findings: Findings) -> tuple[Reason, ...]:
    """Why the gate is closed; none if it is open, without bounds or without a judge."""
    return findings.gate.reasons


def outcomes(findings: Findings) -> Iterator[Outcome]:
    """Each pair as the gate asks about it: what its prompt names of the task's kind, and what of the other domain."""
    for pair in findings.pairs:
        before, after = (read_picture(shot.path) for shot in (pair.before, pair.after))
        moved = distance(before, after) if before and after else None
        for domain in (findings.task.domain, findings.other_domain):
            concept = pair.after.row.labels.get(domain, "")
            asked = domain == findings.task.domain and pair.after.group == "erased"
            if asked or (concept and domain in findings.judged):
                role, aspect = _asked(findings, pair, domain)
                yield Outcome(
                    prompt=pair.after.row.prompt,
                    seed=pair.after.row.seed,
                    role=role,
                    aspect=aspect,
                    concept=concept or findings.task.names[0],
                    before=_seen(findings, pair.before, role, domain=domain),
                    after=_seen(findings, pair.after, role, domain=domain),
                    distance=moved,
                    blank=after is not None and is_flat(after),
                )


def _asked(findings: Findings, pair: Pair, domain: str) -> tuple[Role, str]:
    if domain != findings.task.domain:
        return "kept", f"the {domain}s"
    return ("erased", ASPECTS["erased"]) if pair.after.group == "erased" else ("kept", ASPECTS["kept"])


def _seen(findings: Findings, shot: ScoredImage, role: Role, *, domain: str) -> bool | None:
    """Whether the judge sees in an image what its prompt names; of an erased one, any target."""
    found = saw(findings, shot, domain)
    if found == NO_IMAGE or findings.is_missing(shot):
        return None
    if role == "erased":
        return findings.task.seen_in(findings.scores.verdicts[shot.id])
    return same(found, shot.row.labels[domain])
