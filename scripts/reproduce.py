"""Prints our figures beside the papers', for whoever has the weights: UCE, ESD, MACE and SPEED on Stable Diffusion 1.4.

    python scripts/reproduce.py --model PATH --prompts FOLDER --with clip=FOLDER --with callable=FACES.py
    python scripts/reproduce.py --quick      from end to end on a tiny random model: its figures say nothing

FOLDER holds `i2p.csv` and `coco-30k.csv` (`erase fetch i2p`, `erase fetch coco-30k`), and for people `erased.txt` and
`kept.txt`, a hundred adults' names each, one a line. `uce`, `esd` and `mace` erase nudity and are counted on I2P by
NudeNet (`pip install nudenet`); `speed` erases the hundred people, whom FACES.py, a face recogniser of yours as
docs/verify.md describes it, has to name. `clip` is a CLIP's folder, which looks at what must stay.

What differs from the papers is printed with each figure. The last line is JSON: `experiments`, by method.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from random_models import pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))

from erase import registry
from erase.config.declared import names_minor
from erase.context import RunContext
from erase.errors import BadPrompts
from erase.evaluate.detect import Given
from erase.evaluate.detections import Detector, Finding
from erase.evaluate.protocol import Protocol, load_protocol
from erase.evaluate.verify import Edited, verify
from erase.models import Model, open_model
from erase.run.options import make_edit, method_with
from erase.task import Keep, Target, Task

NUDITY = Task([Target("nudity", "unsafe", "a person wearing clothes", ("naked", "erotic", "sexual"), ("{}",))])
# MACE's stage of words that erases by itself: its LoRA is not part of ours.
FIRST_STAGE = "the closed-form stage alone, on the concept's own words too; the paper trains a LoRA after it"


@dataclass(frozen=True)
class Experiment:
    """A method with its options, the protocol's figure that is read, and what the papers print for it."""

    method: str
    options: Mapping[str, Any]
    protocol: str
    figure: str
    paper: float
    source: str
    differs: str
    paper_base: float | None = None
    quick: Mapping[str, Any] = field(default_factory=dict)


COUNTED = {"protocol": "i2p/mace-0.6-boxes", "figure": "count", "paper_base": 743, "source": "MACE, table of I2P"}
EXPERIMENTS = (
    Experiment("uce", {"preset": "paper"}, paper=182, differs="target, anchor and synonyms are MACE's", **COUNTED),  # type: ignore[arg-type]
    Experiment(
        "esd",
        {"preset": "nsfw"},
        paper=123,
        differs="learnt from a bank, with MACE's four words",
        quick={"steps": 2, "trajectories": 1, "sampling_steps": 2},
        **COUNTED,  # type: ignore[arg-type]
    ),
    Experiment("mace", {"words": "all", "phrasings": "own"}, paper=111, differs=FIRST_STAGE, **COUNTED),  # type: ignore[arg-type]
    Experiment(
        "speed",
        {"preset": "paper", "retain_scale": 0.05},
        protocol="celebrity",
        figure="H_c",
        paper=0.937,
        source="OCE's table, 100 celebrities",
        differs="people, templates and recogniser are the user's",
    ),
)
QUICK = """\
version: "1"
description: a stand-in's answers on a tiny random model
source: scripts/reproduce.py
detector: {{name: callable, version: stand-in{policy}}}
aggregation: {aggregation}
sampler: {{steps: 2, guidance: 4.0, batch: 4, size: 64}}
seeds: [0, 1]
prompts:
  - {{role: erased, aspect: name, fill: names, templates: ["a photo of {{word}}"]}}
  - {{role: kept, aspect: keeps, fill: keeps, templates: ["a photo of {{word}}"]}}
{faces}"""
FACES = '  - {role: erased, aspect: face, fill: names, see: anything, templates: ["a photo of {word}"]}\n'


def people(folder: Path | None) -> Task:
    """The people to erase and to keep, of the user's two files; raises BadPrompts for a file that is not there."""
    if folder is None:
        return Task([Target(name, "identity", "a person") for name in ("Brad Pitt", "Tom Hanks")], ["Tom Cruise"])
    found = []
    for name in ("erased.txt", "kept.txt"):
        if not (folder / name).is_file():
            raise BadPrompts(f"{folder} has no {name}; expected a name a line, of adults.")
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        found.append([line.strip() for line in lines if line.strip() and not names_minor(line)])
    return Task(
        [Target(name, "identity", "a person") for name in found[0]], [Keep(name, "identity") for name in found[1]]
    )


def stand_in(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
    """Findings that follow the pictures' brightness and colour: no detector, something that answers."""
    found = []
    for picture in pictures:
        red, green, blue = (value / 255 for value in picture.convert("RGB").resize((1, 1)).tobytes())
        name = "Tom Cruise" if red > blue else "Brad Pitt"
        found.append([Finding(name, 0.5 + green / 2, "identity"), Finding("box", 0.5 + green / 2)])
    return found


def quick_protocol(experiment: Experiment, folder: Path) -> Protocol:
    """A protocol with the experiment's figure that needs no file, detector or CLIP."""
    faces = experiment.figure == "H_c"
    text = QUICK.format(
        policy="" if faces else ", threshold: 0.5, unit: box, labels: [box]",
        aggregation="faces" if faces else "counts",
        faces=FACES if faces else "",
    )
    path = folder / f"{experiment.method}.yaml"
    path.write_text(text, encoding="utf-8")
    return load_protocol(str(path))


def reproduce(experiment: Experiment, model: Model, options: argparse.Namespace, *, out: Path) -> dict[str, Any]:
    """The experiment's figure, before and after, beside the paper's."""
    task = people(options.prompts) if experiment.protocol == "celebrity" else NUDITY
    if options.quick and task is NUDITY:
        task = Task(NUDITY.targets, [Keep("a city street", "unsafe")])
    method = method_with(experiment.method, {**experiment.options, **(experiment.quick if options.quick else {})})
    place = out / experiment.method
    place.mkdir(parents=True, exist_ok=True)
    edit = make_edit(method, model, task, work=RunContext(None if options.quick else place / "work"))
    detectors: dict[str, Detector] = {"callable": stand_in} if options.quick else {}
    protocol = quick_protocol(experiment, place) if options.quick else load_protocol(experiment.protocol)
    given = Given(paths(options), detectors=detectors)

    def count(text: str, done: int, total: int) -> None:
        print(f"\r{experiment.method}, {text}: {done} of {total}", end="", file=sys.stderr, flush=True)

    result = verify(
        model, Edited(model, edit, task), protocol, task=task, given=given, folder=place / "verified", count=count
    )
    total = next(one for one in result.totals if one.name == experiment.figure)
    told = {key: value for key, value in asdict(experiment).items() if key not in ("quick", "options", "method")}
    return {"base": total.before, "ours": total.after, **told, "options": dict(experiment.options)}


def paths(options: argparse.Namespace) -> dict[str, Path]:
    """The files and folders that protocols need, by name."""
    sets = {} if options.prompts is None else {name: options.prompts / f"{name}.csv" for name in ("i2p", "coco-30k")}
    pairs = dict(one.split("=", 1) for one in options.given)
    return {**{name: path for name, path in sets.items() if path.is_file()}, **{k: Path(v) for k, v in pairs.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Stable Diffusion 1.4: a folder or single file")
    parser.add_argument("--prompts", type=Path, help="the folder of prompt files")
    parser.add_argument("--with", dest="given", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--methods", nargs="+", choices=[one.method for one in EXPERIMENTS])
    parser.add_argument("--out", type=Path, help="where edits and images are left, and found again")
    parser.add_argument("--quick", action="store_true", help="on a tiny random model, with a stand-in for detectors")
    options = parser.parse_args()
    if not options.quick and (options.model is None or options.prompts is None):
        parser.error("give --model and --prompts, or --quick.")
    if any("=" not in one for one in options.given):
        parser.error("--with takes NAME=PATH, such as clip=FOLDER.")
    if options.quick:
        options.prompts = None
    model = open_model(pipeline("stable-diffusion", tiny=True) if options.quick else options.model)
    chosen = [one for one in EXPERIMENTS if not options.methods or one.method in options.methods]
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary if options.quick else "reproduced")
        with registry.allowing([path for name, path in paths(options).items() if name == "callable"]):
            for one in chosen:
                found[one.method] = reproduce(one, model, options, out=out)
                values = found[one.method]
                print(f"\n{one.method}: {one.figure} {values['base']:.4g} -> {values['ours']:.4g}, paper {one.paper:g}")
                print(f"  {one.source}; {one.differs}", flush=True)
    print(json.dumps({"experiments": found, "quick": options.quick}))


if __name__ == "__main__":
    main()
