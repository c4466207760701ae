"""Shows what sliders do on the embedded model: in how many images the style noto is seen at each strength.

python scripts/show_slider.py [--quick] [--sliders style attribute] [--options '{"guidance": 2}'] [--strengths -1 0 1]

A slider is one edit by `lora` with `action: both`, which erases at strength 1 and strengthens at -1, by the model's
presets and `--options`. `style` has the style as its target, as compare_methods.py erases it; `attribute` has pictures
of a few objects as its target and the style as what they are to have more or less of (`positive`). Either is judged in
prompts that name the style (`named`), and in those of all other objects in no named style (`unnamed`), of which the
model draws some in noto by itself.

The last line is one JSON object: by slider and strength `named` and `unnamed`, the shares of images in which the judge
sees the style, and `objects`, of those in which it sees the object that was asked for, each as [value, low, high]
(95 %, Wilson); and the edit's `seconds`. Edits and images stay in the folder. `--quick` trains 40 steps and draws a
dozen images of either sort: that says that it runs and nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compare_methods import edit_of
from measure_erasure import ROOT, sampler_for
from square import rows_for, tasks_of

from erase.config.prompts import Row, load_prompts
from erase.edit import Edit
from erase.evaluate.detections import examine
from erase.evaluate.detectors.classifier import Classifier
from erase.evaluate.statistics.intervals import wilson
from erase.files import content_hash
from erase.models import Model, open_model
from erase.sampling.generate import generate
from erase.task import Target, Task, same

STYLE = "noto"
TRAINED = ("cat", "bee", "lemon", "pizza", "rose", "car", "house", "guitar")


def seen(model: Model, paths: Sequence[Path], domain: str) -> list[str]:
    """What the judge takes each image for."""
    judge = Classifier(model.judge_folder / domain)  # type: ignore[operator]
    found = examine(judge, {str(number): path for number, path in enumerate(paths)}, name=domain)
    return [labels[0].label if (labels := found[str(number)]) else "" for number in range(len(paths))]


def share(hits: Sequence[bool]) -> list[float]:
    return [round(value, 4) for value in (sum(hits) / len(hits), *wilson(sum(hits), len(hits)))]


def shown(
    model: Model, edit: Edit | None, rows: dict[str, list[Row]], *, options: argparse.Namespace
) -> dict[str, Any]:
    """The shares of images in which the style is seen, and those in which their objects are."""
    found, objects = {}, []
    for sort, some in rows.items():
        sampler = sampler_for(model, options.steps, edit)
        paths = generate(model, some, options.folder / "images", edit=edit, sampler=sampler)
        found[sort] = share([same(label, STYLE) for label in seen(model, paths, "style")])
        seen_objects = zip(seen(model, paths, "object"), some, strict=True)
        objects += [same(label, row.labels["object"]) for label, row in seen_objects]
    return found | {"objects": share(objects)}


def sliders() -> dict[str, tuple[Task, dict[str, Any]]]:
    """Each slider's task, and its options beside `action`."""
    prompts = tuple(f"a {{}} of a {name}" for name in TRAINED)
    pictures = Target("picture", "object", "drawing", prompts=prompts)
    return {"style": (tasks_of("styles-1")[0], {}), "attribute": (Task((pictures,)), {"positive": f"{STYLE} style"})}


def measured(model: Model, task: Task, given: dict[str, Any], *, options: argparse.Namespace) -> dict[str, Any]:
    """What a slider shows at each strength, and the seconds that it took to make."""
    few = slice(12 if options.quick else None)
    plain = [row for row in load_prompts("emoji-objects").rows(seeds=[0, 1]) if row.labels["object"] not in TRAINED]
    rows = {"named": rows_for(tasks_of("styles-1")[0], quick=False)[0][few], "unnamed": plain[few]}
    chosen = {"action": "both", **given, **options.options, **({"steps": 40} if options.quick else {})}
    name = f"lora:{json.dumps(chosen)}"
    place = options.folder / content_hash([name, str(asdict(task)), model.content])[:24]
    edit, cost = edit_of(name, model, task, place=place, since=0.0)
    results: dict[str, Any] = {"method": name, "seconds": round(cost["seconds"], 1)}
    for strength in options.strengths:
        scaled = edit.scaled(strength) if edit and strength else None
        found = results[f"{strength:g}"] = shown(model, scaled, rows, options=options)
        said = "  ".join(f"{key} {100 * value[0]:5.1f}" for key, value in found.items())
        print(f"{strength:5.2f}  {said}  {name}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sliders()
    parser.add_argument("--quick", action="store_true", help="40 steps, a dozen images of either sort")
    parser.add_argument("--sliders", nargs="+", choices=list(known), default=list(known))
    parser.add_argument("--options", type=json.loads, default={}, help="of `lora`, as JSON")
    parser.add_argument("--strengths", nargs="+", type=float, default=[-1.0, 0.0, 1.0])
    parser.add_argument("--steps", type=int, default=10, help="of sampling each image")
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "slider")
    options = parser.parse_args()
    model = open_model("emoji")
    print(json.dumps({name: measured(model, *known[name], options=options) for name in options.sliders}))


if __name__ == "__main__":
    main()
