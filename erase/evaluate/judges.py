"""Who judges a run's images: the judge that a model comes with, or a CLIP that chooses among the names of a kind."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from erase import registry
from erase.config.prompts import Row, fill
from erase.errors import ScoreFailed
from erase.evaluate.judge_cache import JudgeCache
from erase.evaluate.neighbours import choices
from erase.models.text import first_line
from erase.task import Kind, Task, folded, same

_log = logging.getLogger(__name__)
CLIP = "openai/clip-vit-large-patch14"  # where none is given: what the field's CLIP scores are by
_FILES = ("*.json", "*.txt", "*.safetensors")
TEMPLATES: Mapping[Kind, str] = MappingProxyType(
    {"style": "{label} style", "object": "a photo of a {label}", "identity": "a photo of {label}", "unsafe": "{label}"}
)


@dataclass(frozen=True)
class ImageJudge:
    """Who says what images show: classifiers in `folder`, or, without one, the CLIP in `clip` among `labels`.

    `kind` is that of the labels, `domain` the one in which CLIP chooses among them. `name` is the judge's version,
    which stands beside its numbers.
    """

    clip: Path
    folder: Path | None = None
    labels: tuple[str, ...] = ()
    kind: Kind = "style"
    domain: str = "style"
    name: str = "emoji-v1"

    @staticmethod
    def embedded(folder: Path) -> ImageJudge:
        """The judge in a folder, which a model comes with."""
        return ImageJudge(folder / "clip", folder)

    @staticmethod
    def of_clip(clip: Path, task: Task, rows: Sequence[Row] = ()) -> ImageJudge:
        """A CLIP that chooses among the task's targets, anchors and keeps, what the rows name, and others of the kind.

        Raises ScoreFailed if the folder holds no CLIP.
        """
        check_clip(clip)
        kind = task.targets[0].kind
        named = [row.labels[task.domain] for row in rows if task.domain in row.labels]
        labels = tuple({folded(name): name for name in [*choices(task), *named]}.values())
        return ImageJudge(clip, None, labels, kind, task.domain, f"clip-zero-shot {clip.name} v1")

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains in which it tells concepts apart."""
        return ("style", "object") if self.folder else (self.domain,)

    @cached_property
    def texts(self) -> dict[str, str]:
        """The text that CLIP is asked with for each label."""
        return {label: fill(TEMPLATES[self.kind], {"label": label}) for label in self.labels}

    def known(self, domain: str) -> list[str]:
        """The labels that it can give in a domain; raises ScoreFailed."""
        if self.folder is None:
            return list(self.labels)
        try:
            config = json.loads((self.folder / domain / "config.json").read_text(encoding="utf-8"))
            return [str(label) for label in config["id2label"].values()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ScoreFailed(
                f"the judge in {self.folder / domain} cannot be loaded: {type(error).__name__}, {error}"
            ) from error

    def see(self, readings: JudgeCache, domain: str, pixels: Mapping[str, Tensor]) -> dict[str, str]:
        """The label that each image shows most in a domain, by the image's name."""
        if self.folder is not None:
            return readings.labels(self.folder / domain, pixels)
        texts = readings.towers(self.clip).texts(list(self.texts.values()), cut=True)
        images = readings.vectors(self.clip, pixels)
        found = {}
        for name, image in images.items():
            found[name] = max(self.labels, key=lambda label: float(image @ texts[self.texts[label]]))
        return found

    def ahead(self, readings: JudgeCache, networks: Sequence[str], pixels: Mapping[str, Tensor]) -> None:
        """Reads images by the networks of these names, so that scores find it done."""
        if self.folder is not None:
            readings.ahead(self.folder, networks, pixels)
        elif networks:
            readings.vectors(self.clip, pixels)

    def check_labels(self, rows: Sequence[Row]) -> None:
        """Raises ScoreFailed for a label that it cannot give: its images would all pass for erased."""
        for domain in self.domains:
            known = self.known(domain)
            for row in rows:
                if (label := row.labels.get(domain)) is not None and not any(same(label, one) for one in known):
                    said = registry.nearest(f"{domain} label", label, known)
                    raise ScoreFailed(f"the judge cannot score what it does not know: {said}")


def check_labels(judge: Path, rows: Sequence[Row]) -> None:
    """Raises ScoreFailed for a label that a judge cannot give: its images would all pass for erased."""
    ImageJudge.embedded(judge).check_labels(rows)


def check_clip(folder: Path) -> None:
    """Raises ScoreFailed if a folder holds no CLIP."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ScoreFailed(
            f"{folder} holds no CLIP (its config.json cannot be read); give a folder such as that of {CLIP}."
        ) from error
    if kind != "clip":
        raise ScoreFailed(f"{folder} holds a model of type {kind}; expected a CLIP, such as that of {CLIP}.")


def find_clip(given: str) -> Path:
    """The folder of a CLIP: a path, or an id of the hub, from its cache or fetched after its size was told.

    Raises ScoreFailed with what to give where there is none.
    """
    path = Path(given).expanduser() if given else None
    if path is not None and path.is_dir():
        check_clip(path)
        return path
    name = given or CLIP
    if given and not registry.is_hub_id(given):
        raise ScoreFailed(f"the CLIP {given} does not exist; give its folder, or an id of the hub such as {CLIP}.")
    try:
        folder = _from_hub(name)
    except Exception as error:  # the hub's network library raises errors of its own
        raise ScoreFailed(
            f"this model comes without a judge, and the CLIP {name} to judge it by is neither cached nor to be "
            f"fetched ({first_line(error)[:120]}); give its folder: --with clip=FOLDER, or verify: {{with: {{clip: "
            "FOLDER}} in the pipeline."
        ) from error
    check_clip(folder)
    return folder


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = list(_FILES)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        info = huggingface_hub.HfApi().model_info(name, files_metadata=True, timeout=10)
        files = [one for one in info.siblings or [] if one.rfilename.endswith((".json", ".txt", ".safetensors"))]
        size = sum(one.size or 0 for one in files)
        _log.warning("fetching the CLIP %s to judge by, %.1f GB, into the hub's cache", name, size / 1e9)
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
