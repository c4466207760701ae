"""What judges need: the labels that a model's own knows, the CLIP in its place where there is none."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from erase import registry
from erase.config.prompts import Row
from erase.errors import ScoreFailed
from erase.evaluate.detectors.judge import DOMAINS
from erase.models.text import first_line
from erase.task import Kind, same

_log = logging.getLogger(__name__)
CLIP = "openai/clip-vit-large-patch14"  # where none is given: what the field's CLIP scores are by
_FILES = ("*.json", "*.txt", "*.safetensors")
TEMPLATES: Mapping[Kind, str] = MappingProxyType(
    {"style": "{} style", "object": "a photo of a {}", "identity": "a photo of {}", "unsafe": "{}"}
)


def check_labels(judge: Path, rows: Sequence[Row]) -> None:
    """Raises ScoreFailed for a label that a judge cannot give: its images would all pass for erased."""
    for domain in DOMAINS:
        known = _known(judge / domain)
        for row in rows:
            if (label := row.labels.get(domain)) is not None and not any(same(label, one) for one in known):
                said = registry.nearest(f"{domain} label", label, known)
                raise ScoreFailed(f"the judge cannot score what it does not know: {said}")


def _known(classifier: Path) -> list[str]:
    """The labels that a judge's classifier can give; raises ScoreFailed."""
    try:
        config = json.loads((classifier / "config.json").read_text(encoding="utf-8"))
        return [str(label) for label in config["id2label"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScoreFailed(f"the judge in {classifier} cannot be loaded: {type(error).__name__}, {error}") from error


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
