"""`erase calibrate`: how often a detector is right, on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erase.cli import _task

if TYPE_CHECKING:
    from erase.evaluate.detections import Detector, Policy

Several = list[str]


def calibrate(
    detector: Annotated[str, typer.Argument(help="One of `erase list detectors`.")],
    folder: Annotated[Path, typer.Argument(help="A folder with a sub-folder of images for each label.")],
    *,
    given: Annotated[
        Several | None, typer.Option("--with", "-w", help="A file or folder that it needs, as name=PATH.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score that counts.", show_default="the highest score")
    ] = None,
    domain: Annotated[str, typer.Option(help="Of a detector that sees several kinds, the one of the labels.")] = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="The file written.")] = Path("calibration.json"),
    quiet: _task.Quiet = False,
    allow: _task.Allow = None,
) -> None:
    """Measure a detector's sensitivity and specificity, for `erase evidence --calibration FILE`.

    [bold]erase calibrate classifier pictures --with classifier=resnet-50[/]
    """
    from erase.cli._runs import check_writable
    from erase.cli._watch import ShownProgress
    from erase.evidence.calibrate import calibrate as measure
    from erase.evidence.calibrate import labelled_images
    from erase.evidence.stored import as_text
    from erase.files import write_atomically

    check_writable(out)
    labelled = labelled_images(folder)
    policy, built = _build(detector, list(labelled), threshold, given=given or [])
    with ShownProgress(quiet=quiet) as watch:
        watch.begin("calibrate", detector)
        found = measure(
            built,
            policy,
            labelled,
            domain=domain,
            progress=lambda done, total: watch.count("looked at", done, total),
        )
    write_atomically(out, as_text(found | {"source": f"the labelled images of {folder.resolve().name}"}))
    for label, one in found["labels"].items():
        rates = " ".join(f"{name} {_rate(one[name])}" for name in ("sensitivity", "specificity"))
        typer.echo(f"{label:<20} {rates}  ({one['positives']} and {one['negatives']} images)")
    typer.echo(f"calibrate {out}")


def _build(name: str, labels: Several, threshold: float | None, *, given: Several) -> tuple[Policy, Detector]:
    """A detector with the policy of a single one; the judge is that of the embedded model, if no other is given."""
    from erase import registry
    from erase.cli.verify import parse_given
    from erase.evaluate.detect import Given, build_detector
    from erase.evaluate.protocol import DetectorForm
    from erase.models import open_model

    version = str(getattr(registry.load("detectors", name), "version", ""))
    form = DetectorForm(name=name, version=version, threshold=threshold)
    judge = open_model("emoji").judge_folder if name == "judge" else None
    return form.policy, build_detector(form, labels, Given(parse_given(given), judge))


def _rate(values: list[float]) -> str:
    value, low, high = (100 * one for one in values)
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"
