"""The model card of an edited model: what it was made from, what was done to it, how well that worked."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from erase.edit import Edit
from erase.errors import BadOption
from erase.evaluate.attacked import headline
from erase.evaluate.metrics.figure import Figure

CARD, RECIPE, PICTURE = "README.md", "recipe.yaml", "grid.png"
SHOWN = 12  # targets that a card names; the recipe has all
WORDS = {  # what a card says of a score, and in which form
    "ua_attacked": ("target no longer seen under the strongest attack", "{:.1%}"),
    "ua": ("target no longer seen (clean UA)", "{:.1%}"),
    "ira": ("others of its kind still drawn (IRA)", "{:.1%}"),
    "cra": ("the rest still drawn (CRA)", "{:.1%}"),
    "clip": ("CLIP score, {group}", "{:.1f}"),
}
_INHERITED = ("license", "license_name", "license_link", "language", "extra_gated_prompt")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """What a card says besides the edit: the base's id on the hub, its licence if it has no card, figures, a picture.

    `figures`: pairs of what a score was before the edit, empty if it was not measured there, and after it.
    """

    base_model: str = ""
    licence: str = ""
    figures: tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...] = ()
    protocol: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    picture: Path | None = None


def read_about(source: Path, *, base_model: str = "", licence: str = "", scores: str = "", picture: str = "") -> About:
    """What is known of the source and of the scores; raises BadOption if the scores or the picture cannot be read."""
    inherited = {key: value for key, value in front_matter(source / CARD).items() if key in _INHERITED}
    if not licence and "license" not in inherited:
        _logger.warning("%s has no card that names its licence; give it as the option licence", source)
    shown = Path(picture) if picture else None
    if shown is not None and not shown.is_file():
        raise BadOption(f"picture {shown} does not exist; give a .png, such as a run's grid.png.")
    if not scores:
        return About(base_model, licence, source=inherited, picture=shown)
    try:
        measured = json.loads(Path(scores).read_text(encoding="utf-8"))
        sides: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {"before": {}, "after": {}}
        for figure in measured["figures"]:
            sides[figure["side"]][figure["name"], figure["group"]] = figure
        figures = tuple((sides["before"].get(key, {}), one) for key, one in sides["after"].items())
        _ = [_row(*pair) for pair in figures if pair[1]["name"] in WORDS]
        return About(base_model, licence, figures, measured["protocol"], inherited, shown)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadOption(f"{scores} holds no scores ({error}); expected a run's scores.json.") from error


def picture_beside(scores: str, edit: Edit, *, redact: str) -> str:
    """The picture of the run whose scores a card shows, if it has one that anybody may see; else ""."""
    beside = Path(scores).with_name(PICTURE) if scores else None
    unsafe = any(target["kind"] == "unsafe" for target in edit.info.task.get("targets", []))
    return str(beside) if beside is not None and beside.is_file() and not redact and not unsafe else ""


def front_matter(card: Path) -> dict[str, Any]:
    """The metadata at the top of a model's card; empty if there is no card or nothing readable at its top."""
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}
    try:
        content = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def write_card(folder: Path, recipe: Mapping[str, Any], about: About, *, title: str) -> dict[str, Any]:
    """What the manifest says of it: the card, the recipe and the picture written into a folder, and under which names
    the source's own files of these names were kept.
    """
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=100)
    files = {CARD: card(recipe, about, title=title).encode(), RECIPE: text.encode()}
    if about.picture is not None:
        files[PICTURE] = about.picture.read_bytes()
    renamed = {}
    for name in (name for name in files if (folder / name).exists()):
        kept = next(kept for kept in _names(name) if not (folder / kept).exists())
        (folder / name).rename(folder / kept)
        renamed[kept] = name
        if name == CARD:
            files[CARD] += f"\nThe base model's card is [{kept}]({kept}).\n".encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {"added": list(files)} | ({"renamed": renamed} if renamed else {})


def _names(name: str) -> Iterator[str]:
    stem, _, suffix = name.rpartition(".")
    yield f"{stem}.base.{suffix}"
    yield from (f"{stem}.base-{number}.{suffix}" for number in count(2))


def card(recipe: Mapping[str, Any], about: About, *, title: str) -> str:
    """The card as Markdown with the hub's metadata at its top."""
    head: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    head |= dict(about.source) | ({"license": about.licence} if about.licence else {})
    if about.base_model:
        head |= {"base_model": about.base_model, "base_model_relation": "finetune"}
    head["tags"] = ["concept-erasure", recipe["method"]]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    picture = f"![before and after]({PICTURE})\n" if about.picture is not None else ""
    sections = [f"# {_plain(title)}\n", _what(recipe, about), picture, _figures(about), _CODE, _LIMITS]
    return f"---\n{front}---\n\n" + "\n".join(section for section in sections if section)


def _what(recipe: Mapping[str, Any], about: About) -> str:
    base = f"`{about.base_model}`" if about.base_model else f"a base model (fingerprint `{recipe['base'][:12]}`)"
    targets = [target for _, part in parts_of(recipe) for target in part["task"].get("targets", [])]
    erased = [f"{_plain(t['name'])} ({t['kind']}, now {_plain(t.get('anchor') or 'nothing')})" for t in targets[:SHOWN]]
    more = f" and {len(targets) - SHOWN} more" if len(targets) > SHOWN else ""
    said = f"Erased: {', '.join(erased)}{more}. " if erased else ""
    return f"{said}Made from {base} by `{recipe['tool']}`, method `{recipe['method']}`; [{RECIPE}]({RECIPE}) has all.\n"


def _figures(about: About) -> str:
    rows = [_row(*pair) for pair in about.figures if pair[1]["name"] in WORDS]
    if not rows:
        return ""
    head = f"| protocol `{about.protocol}` | before | after | 95 % interval | images |"
    said = headline([Figure(**one) for _, one in about.figures])
    return "\n".join([*([f"{said}.\n"] if said else []), head, "|---|---|---|---|---|", *rows, ""])


def _row(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    words, form = WORDS[after["name"]]
    was = form.format(before["value"]) if before else "-"
    interval = f"{form.format(after['low'])} to {form.format(after['high'])}"
    return f"| {words.format(**after)} | {was} | {form.format(after['value'])} | {interval} | {after['n']} |"


_CODE = """```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("PATH OR ID OF THIS MODEL")
pipe("a cat").images[0].save("cat.png")
```
"""
_LIMITS = (
    "Erasure is not proof against every prompt or against fine-tuning; figures hold for their protocol only. The base "
    "model's licence and its restrictions on use apply to this model as well. `erase verify-manifest` checks every "
    "file by the hashes in `manifest.json`.\n"
)


def parts_of(recipe: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The method and description of each single edit in a recipe, those of a sum one by one."""
    if not recipe["parts"]:
        return [(recipe["method"], recipe)]
    return [single for part in recipe["parts"] for single in parts_of(part)]


def _plain(text: str) -> str:
    """A text that stays in its line."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())
