"""What an embedded model's judge sees in its images."""

from __future__ import annotations

from pathlib import Path

from erase.config.prompts import load_prompts
from erase.evaluate.detections import examine
from erase.evaluate.detectors.classifier import Classifier
from erase.models import Model
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler


def right(model: Model, sampler: Sampler, prompts: str, folder: Path, *, domains: tuple[str, ...]) -> list[float]:
    """Shares of some thirty of a prompt set's images that the judge takes for their labels."""
    rows, paths = load_prompts(prompts).rows(seeds=[11])[5::13], {}
    assert len(rows) > 25
    for number, (_, image) in enumerate(sample(model, rows, sampler)):
        paths[str(number)] = folder / f"{number}.png"
        image.save(paths[str(number)])
    shares = []
    for domain in domains:
        seen = examine(Classifier(model.path / "judge" / domain), paths, name="judge")
        found = [(seen[str(number)] or ())[0].label == row.labels[domain] for number, row in enumerate(rows)]
        shares.append(sum(found) / len(found))
    return shares
