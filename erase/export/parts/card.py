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

from erase.errors import BadOption

CARD = "README.md"
_INHERITED = ("license", "license_name", "license_link", "language", "extra_gated_prompt")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """What a card says besides the edit: the base's id on the hub, its licence if it has no card, figures."""

    base_model: str = ""
    licence: str = ""
    figures: tuple[Mapping[str, Any], ...] = ()
    protocol: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)


def read_about(source: Path, *, base_model: str = "", licence: str = "", scores: str = "") -> About:
    """What is known of the source and of the scores; raises BadOption if the scores cannot be read."""
    inherited = {key: value for key, value in front_matter(source / CARD).items() if key in _INHERITED}
    if not licence and "license" not in inherited:
        _logger.warning("%s has no card that names its licence; give it as the option licence", source)
    if not scores:
        return About(base_model, licence, source=inherited)
    try:
        measured = json.loads(Path(scores).read_text(encoding="utf-8"))
        figures = tuple(figure for figure in measured["figures"] if figure["side"] == "after")
        _ = [_row(figure) for figure in figures]
        return About(base_model, licence, figures, measured["protocol"], inherited)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadOption(f"{scores} holds no scores ({error}); expected a run's scores.json.") from error


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
    """What the manifest says of it: the card written into a folder, and under which name the source's own was kept."""
    file = folder / CARD
    said: dict[str, Any] = {"added": [CARD]}
    text = card(recipe, about, title=title)
    if file.exists():
        kept = next(name for name in _names() if not (folder / name).exists())
        file.rename(folder / kept)
        said["renamed"] = {kept: CARD}
        text += f"\n## The base model's card\n\nSee [{kept}]({kept}).\n"
    file.write_text(text, encoding="utf-8")
    return said


def _names() -> Iterator[str]:
    yield "README.base.md"
    yield from (f"README.base-{number}.md" for number in count(2))


def card(recipe: Mapping[str, Any], about: About, *, title: str) -> str:
    """The card as Markdown with the hub's metadata at its top."""
    head: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    head |= dict(about.source) | ({"license": about.licence} if about.licence else {})
    if about.base_model:
        head |= {"base_model": about.base_model, "base_model_relation": "finetune"}
    head["tags"] = ["concept-erasure", recipe["method"]]
    sections = [_what(recipe, about), _figures(about), _limits(), _recipe(recipe)]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n# {_plain(title)}\n\n" + "\n".join(section for section in sections if section)


def _what(recipe: Mapping[str, Any], about: About) -> str:
    base = f"`{about.base_model}`" if about.base_model else f"a base model (fingerprint `{recipe['base'][:12]}`)"
    lines = [f"Made from {base} by `{recipe['tool']}`, method `{recipe['method']}`.", ""]
    targets = [target for _, part in parts_of(recipe) for target in part["task"].get("targets", [])]
    if targets:
        lines += ["| erased | kind | becomes |", "|---|---|---|"]
        lines += [f"| {_plain(t['name'])} | {t['kind']} | {_plain(t.get('anchor') or 'nothing')} |" for t in targets]
    licence = "The base model's licence and its restrictions on use apply to this model as well.\n"
    return "\n".join([*lines, "", licence])


def _figures(about: About) -> str:
    if not about.figures:
        return ""
    lines = [f"## Figures\n\nProtocol `{about.protocol}`, after the edit; intervals of 95 %.\n"]
    lines += ["| score | over | value | interval | better | images |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(_row(one) for one in about.figures), ""])


def _row(one: Mapping[str, Any]) -> str:
    interval = f"{one['low']:.3f} to {one['high']:.3f}"
    cells = (one["name"], one["group"], f"{one['value']:.3f}", interval, one["direction"], one["n"])
    return f"| {' | '.join(map(str, cells))} |"


def _limits() -> str:
    return (
        "## Limits\n\nErasure is not proof against every prompt or against fine-tuning; figures hold for their "
        "protocol only. `manifest.json` lists every file and every changed tensor with its hash "
        "(`erase verify-manifest` checks them).\n"
    )


def _recipe(recipe: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=100)
    return f"## Recipe\n\n```yaml\n{text}```\n"


def parts_of(recipe: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The method and description of each single edit in a recipe, those of a sum one by one."""
    if not recipe["parts"]:
        return [(recipe["method"], recipe)]
    return [single for part in recipe["parts"] for single in parts_of(part)]


def _plain(text: str) -> str:
    """A text that stays in its line and cell."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())
