"""Calibrates the embedded judge on the real icons under views that it was not trained on.

python scripts/embedded/calibrate_judge.py --out erase/evidence/calibrations/emoji-judge.json
python scripts/embedded/calibrate_judge.py --quick --out calibration.json

Shifts and scales come from the gaps that training left out (`pictures.py`), colours and noise as in training. An icon's
views are not independent: a style has 50 icons, an object 8.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from icons import load_objects, load_styles
from pictures import placed, recoloured, within
from PIL import Image
from torch import Tensor
from training import load_icons

from erase.evaluate.detections import Policy
from erase.evaluate.detectors.judge import Judge
from erase.evidence.calibrate import calibrate
from erase.evidence.stored import as_text
from erase.models import open_model

SHIFTS = ((5.01, 6.09),)  # pixels; training had up to 5, and for styles from 6.1
SCALES = ((0.80, 0.86), (1.165, 1.225))  # training had 0.861 to 1.161 for objects, and for styles what is beyond
VIEWS = {"style": 4, "object": 25}  # of each icon: 200 images of each style, and of each object


def unseen(icon: Tensor, rng: np.random.Generator) -> Tensor:
    """A random view of an icon from the gaps of training, [3, 64, 64] in -1 .. 1."""
    down, right = (within(SHIFTS, rng) * rng.choice([-1, 1]) for _ in range(2))
    return recoloured(placed(icon, down=down, right=right, scale=within(SCALES, rng)), rng)


def draw(folder: Path, which: str, views: int, *, seed: int) -> dict[str, list[Path]]:
    """Pictures of every icon by the label of one kind."""
    icons, names = load_icons(), (list(load_styles()), list(load_objects()))
    rng = np.random.default_rng((seed, len(which)))
    labelled: dict[str, list[Path]] = {}
    for style, object_ in np.ndindex(icons.shape[:2]):
        label = names[0][style] if which == "style" else names[1][object_]
        for view in range(views):
            pixels = unseen(icons[style, object_], rng).clamp(-1, 1)
            path = folder / which / f"{style}-{object_}-{view}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            array = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(array).save(path)
            labelled.setdefault(label, []).append(path)
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
    found: dict[str, dict] = {}
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
    print(json.dumps({"images": both["images"], "worst": worst, "seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()
