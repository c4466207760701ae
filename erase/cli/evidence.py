"""`erase evidence`: a verdict as a folder that others can check and recompute, and its check."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from erase.evidence.check import Checked
    from erase.models import Model

KEY = Path("evidence.key")
Paths = list[Path]
Several = list[str]


def evidence(
    folder: Annotated[Path, typer.Argument(help="A run, a folder of `erase verify`, or with --check a pack.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The pack's folder.", show_default="FOLDER-evidence")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check a pack: hashes, figures, signature.")] = False,
    edit: Annotated[
        Path | None, typer.Option("--edit", "-e", help="The edit's file: goes into the pack; --check compares it.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--model", "-m", "--base", "-b", help="The base model, to compare prompts by its text encoder."),
    ] = None,
    calibration: Annotated[
        Paths | None, typer.Option(help="A file of `erase calibrate` for a detector; repeatable.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --check: the detectors look at the images again.")
    ] = False,
    given: Annotated[
        Several | None, typer.Option("--with", "-w", help="What the detectors need to look again, as name=PATH.")
    ] = None,
    without_images: Annotated[bool, typer.Option("--without-images", help="The images' hashes alone.")] = False,
    key: Annotated[Path | None, typer.Option(help="Sign by this private key (PEM).", show_default=False)] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help=f"Make a key first, at --key or {KEY}.")] = False,
    signer: Annotated[Path | None, typer.Option(help="With --check: the public key that it must be signed by.")] = None,
) -> None:
    """Write a pack of evidence, or check one: exit code 0 if it is sound and its edit passed, else 3.

    [bold]erase evidence runs/erase-style --new-key[/]
    [bold]erase evidence --check erase-style-evidence --signer evidence.key.pub[/]
    """
    from erase.errors import BadOption

    if check:
        raise typer.Exit(_check(folder, edit, signer, given=(given or []) if again else None))
    if signer is not None or again:
        raise BadOption("--signer and --again belong to --check; a pack is signed by --key FILE.")
    named = (base, edit, calibration or [], given or [])
    _write(folder, out, named, images=not without_images, key=_key(key, new_key))


def _key(key: Path | None, new: bool) -> Path | None:
    """The key to sign by, made if that is asked for; raises CannotWrite."""
    if not new:
        return key
    from erase.evidence.sign import new_key

    public = new_key(key or KEY)
    typer.echo(f"key       {key or KEY}, which stays with you; {public} is for whoever checks")
    return key or KEY


def _write(
    folder: Path,
    out: Path | None,
    named: tuple[str | None, Path | None, Paths, Several],
    *,
    images: bool,
    key: Path | None,
) -> None:
    from erase.cli._runs import check_writable
    from erase.cli._watch import ShownProgress
    from erase.cli.verify import parse_given
    from erase.errors import BadEvidence
    from erase.evaluate.result import FILE
    from erase.evidence.again import given_for
    from erase.evidence.pack import Beside, write_pack
    from erase.evidence.stored import hold, read
    from erase.run.store import RUNS

    source = folder if folder.is_dir() or not (RUNS / folder).is_dir() else RUNS / folder
    target = out or Path(f"{source.resolve().name}-evidence")
    check_writable(target)
    base, edit, files, given = named
    calibrations = {}
    for path in files:
        value = read(path)
        if "detector" not in value or "labels" not in value:
            raise BadEvidence(f"{path} is no calibration; expected a file of `erase calibrate`.")
        calibrations[str(value["detector"])] = value
    looking = given_for(hold(source), parse_given(given)) if (source / FILE).is_file() else None
    with ShownProgress() as watch:
        watch.begin("evidence", f"of {source}")
        beside = Beside(
            edit, calibrations, _model(source, base), key, images, looking, partial(watch.count, "looked at")
        )
        write_pack(source, target, beside)
    typer.echo(f"evidence  {target}: read {target / 'evidence.html'}; `erase evidence --check {target}` checks it")


def _model(source: Path, base: str | None) -> Model | None:
    """The base model that was named, else the embedded one where the result is of it."""
    from erase.evidence.stored import read
    from erase.models import open_model

    result = source / "result.json"
    if base is None and result.is_file() and read(result).get("model") == "emoji":
        base = "emoji"
    return None if base is None else open_model(base)


def _check(folder: Path, edit: Path | None, signer: Path | None, *, given: Several | None) -> int:
    from erase.cli.verify import parse_given
    from erase.evidence.again import given_for
    from erase.evidence.check import CHECKS, check_pack
    from erase.evidence.stored import hold

    looking = None if given is None else given_for(hold(folder), parse_given(given))
    found = check_pack(folder, signer=signer, edit=edit, given=looking)
    for name, text in found.problems:
        typer.echo(f"{name}: {text}")
    for text in found.notes:
        typer.echo(f"note: {text}")
    typer.echo(_last_line(folder, found, len(CHECKS)))
    return found.exit_code


def _last_line(folder: Path, found: Checked, checks: int) -> str:
    signed = f"signed by {found.signer[:16]}" if found.signer else "unsigned"
    if found.problems:
        return f"REFUSED  {folder}: {len(found.problems)} problems"
    said = "PASSED" if found.verdict == "passed" else "FAILED"
    return f"SOUND  {folder}, {signed}, by {checks} checks; its verdict, recomputed: the edit {said}"
