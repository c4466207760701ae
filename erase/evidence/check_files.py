"""Checks of a pack's files: hashes, dates, images, the edit, the signature. Each yields what is wrong, in words."""

from __future__ import annotations

from erase.evaluate.result import FILE, FIXED, alike
from erase.evaluate.verify import distance, is_flat
from erase.evidence import sign
from erase.evidence.pack import files_of, is_verified
from erase.evidence.stored import EDIT, SIGNATURE, SIGNER, Pack, Problems, inside, part
from erase.files import content_hash, sha256_of
from erase.sampling.pictures import read_picture


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
