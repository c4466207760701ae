"""Why a run has failed, in the words of `erase verify`: the gate's reasons from the run's own pairs."""

from __future__ import annotations

from collections.abc import Iterator

from erase.evaluate.gate import Limits, Outcome, Reason, Role, judge
from erase.evaluate.grid import Pair
from erase.evaluate.report.findings import Findings
from erase.evaluate.report.matrices import NO_IMAGE, saw
from erase.evaluate.shots import Shot, read_picture
from erase.evaluate.verify import distance, is_flat
from erase.task import same

ASPECTS = {"erased": "its own prompts", "kept": "the others of its kind"}


def reasons_of(findings: Findings) -> tuple[Reason, ...]:
    """What is still there, lost or broken by the run's bounds; none without a judge.

    Whether the images are enough is not asked here: the run's gate bounds values, and its figures show their intervals.
    """
    if not findings.scores.verdicts:
        return ()
    bounds = findings.bounds
    kept = min([bounds[name] for name in ("ira", "cra") if name in bounds], default=0.8)
    verdict = judge(list(outcomes(findings)), Limits(gone=bounds.get("ua", 0.8), kept=kept))
    return tuple(reason for reason in verdict.reasons if reason.kind != "too few images to tell")


def outcomes(findings: Findings) -> Iterator[Outcome]:
    """Each pair as the gate asks about it: what its prompt names of the task's kind, and what of the other domain."""
    for pair in findings.pairs:
        before, after = (read_picture(shot.path) for shot in (pair.before, pair.after))
        moved = distance(before, after) if before and after else None
        for domain in (findings.task.domain, findings.other_domain):
            if concept := pair.after.row.labels.get(domain):
                role, aspect = _asked(findings, pair, domain)
                yield Outcome(
                    prompt=pair.after.row.prompt,
                    seed=pair.after.row.seed,
                    role=role,
                    aspect=aspect,
                    concept=concept,
                    before=_seen(findings, pair.before, role, domain=domain),
                    after=_seen(findings, pair.after, role, domain=domain),
                    distance=moved,
                    blank=after is not None and is_flat(after),
                )


def _asked(findings: Findings, pair: Pair, domain: str) -> tuple[Role, str]:
    if domain != findings.task.domain:
        return "kept", f"the {domain}s"
    return ("erased", ASPECTS["erased"]) if pair.after.group == "erased" else ("kept", ASPECTS["kept"])


def _seen(findings: Findings, shot: Shot, role: Role, *, domain: str) -> bool | None:
    """Whether the judge sees in an image what its prompt names; of an erased one, any target."""
    found = saw(findings, shot, domain)
    if found == NO_IMAGE or findings.is_missing(shot):
        return None
    if role == "erased":
        return findings.task.seen_in(findings.scores.verdicts[shot.id])
    return same(found, shot.row.labels[domain])
