"""Calibrates the embedded judge on the real icons under views that it was not trained on.

python scripts/calibrate_judge.py --out erase/evidence/calibrations/emoji-judge.json
python scripts/calibrate_judge.py --quick --out calibration.json

Views are those of `measure_model.py`: moved, scaled, turned and recoloured in ways that training left out. An icon's
views are not independent: a style has 50 icons, an object 8.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure_model import real_icons, unseen_views

from erase.config.prompts import load_prompts
from erase.evaluate.detections import Policy
from erase.evaluate.detectors.judge import Judge
from erase.evidence.calibrate import calibrate
from erase.evidence.stored import as_text
from erase.models import open_model

VIEWS = {"style": 4, "object": 25}  # of each icon: 200 images of each style, and of each object


def draw(folder: Path, which: str, views: int, *, seed: int) -> dict[str, list[Path]]:
    """Pictures of every icon by the label of one kind."""
    square, rng = load_prompts("emoji-square"), np.random.default_rng((seed, len(which)))
    labelled: dict[str, list[Path]] = {}
    (folder / which).mkdir()
    for number, (icon, style, thing) in enumerate(real_icons(square.words("style"), square.words("object"))):
        for view in range(views):
            path = folder / which / f"{number}-{view}.png"
            unseen_views(icon, rng).save(path)
            labelled.setdefault(style if which == "style" else thing, []).append(path)
    return labelled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one view of each icon")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    folder = open_model("emoji").judge_folder
    if folder is None:
        raise SystemExit("the embedded model has no judge")
    judge, policy, begun = Judge(folder), Policy("judge", Judge.version), time.perf_counter()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        for which, views in VIEWS.items():
            labelled = draw(Path(place), which, 1 if chosen.quick else views, seed=chosen.seed)
            found[which] = calibrate(judge, policy, labelled, domain=which)
    both = found["style"] | {"labels": found["style"]["labels"] | found["object"]["labels"]}
    both |= {"images": {which: one["images"] for which, one in found.items()}}
    both |= {"source": "the real icons under views that it was not trained on"}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(as_text(both), encoding="utf-8")
    worst = {
        f"{which} {name}": min((one[name][0], label) for label, one in values["labels"].items())
        for which, values in found.items()
        for name in ("sensitivity", "specificity")
    }
    right = {
        which: sum(one["found"] for one in values["labels"].values()) / values["images"]["count"]
        for which, values in found.items()
    }
    counts = {which: one["images"]["count"] for which, one in found.items()}
    told = {"images": counts, "right": right, "worst": worst, "seconds": round(time.perf_counter() - begun, 1)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
