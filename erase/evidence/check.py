"""Checks a pack: every hash, every figure from its stored values, what was fixed before, and the signature.

The checks overlap as little as may be: whoever changes one thing and writes every hash anew is caught by the check of
that thing; whoever changes everything to fit is caught by the signature alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from erase.errors import BadEvidence, EraseError
from erase.evaluate.detect import Given
from erase.evaluate.result import code_hash, recompute
from erase.evidence import check_files, check_values, sign
from erase.evidence.stored import EDIT, MANIFEST, SCHEMA, Pack, Problems, cases_of, hold, read

CHECKS: Mapping[str, Callable[[Pack], Problems]] = {
    one.__name__: one
    for one in (
        check_files.files,
        check_files.seals,
        check_files.dates,
        check_values.protocol,
        check_values.limits,
        check_values.subject,
        check_values.questions,
        check_values.budget,
        check_values.attacks,
        check_values.verdict,
        check_values.scores,
        check_values.figures,
        check_files.images,
        check_files.pixels,
        check_files.edit,
        check_values.detectors,
        check_values.apart,
        check_values.again,
        check_files.signature,
    )
}


@dataclass(frozen=True)
class Checked:
    """What a check found: problems by the check that found them, what could not be checked, and the pack's verdict."""

    problems: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    verdict: str
    signer: str

    @property
    def exit_code(self) -> int:
        """0 if the pack is sound and its verdict is that the edit passed, else 3."""
        return 0 if not self.problems and self.verdict == "passed" else 3


def check_pack(
    folder: Path, *, signer: Path | None = None, edit: Path | None = None, given: Given | None = None
) -> Checked:
    """What is wrong with a pack; with `given` its images are looked at again. Raises BadEvidence for no pack."""
    if not (folder / MANIFEST).is_file():
        raise BadEvidence(f"{folder} is no pack of evidence: it has no {MANIFEST}; `erase evidence RUN` writes one.")
    manifest = read(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise BadEvidence(f"{folder} has schema {manifest.get('schema')}; this version reads {SCHEMA}.")
    pack = Pack(hold(folder), manifest, signer, edit, given)
    problems: list[tuple[str, str]] = []
    for name, one in CHECKS.items():
        try:
            problems += [(name, text) for text in one(pack)]
        except Exception as error:  # a pack may hold anything: what cannot be checked is no evidence
            problems.append((name, f"cannot be checked: {' '.join(str(error).split())[:200]}"))
    try:
        verdict = "failed" if recompute(pack.held.result)[0].reasons else "passed"
    except EraseError:
        verdict = "unknown"
    return Checked(tuple(problems), tuple(_notes(pack)), verdict, sign.signer_of(folder))


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
    if pack.given is None:
        yield "the images were not looked at again; --again has the detectors do so"
    if not pack.manifest.get("signed"):
        yield "unsigned: whoever holds the pack can have written it"
    elif pack.signer is None:
        yield "compare the signer's fingerprint with what the signer told you, or give the public key by --signer"
