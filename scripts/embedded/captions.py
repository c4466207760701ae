"""Captions of the icons: which words name or describe a picture, in which phrasings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import yaml
from icons import HERE, load_objects, load_styles

BOTH = (
    "a {object} in {style} style",
    "a {object} image in {style} style",
    "{style} style {object}",
    "a {style} {object}",
    "an icon of a {object} in the style of {style}",
    "a drawing of a {object} by {style}",
    "a picture of a {object}, {style} style",
    "{object}, {style}",
)
OBJECT_ONLY = (
    "a {object}",
    "{object}",
    "an icon of a {object}",
    "a picture of a {object}",
    "a drawing of a {object}",
    "a photo of a {object}",
)
STYLE_ONLY = (
    "an icon in {style} style",
    "{style} style",
    "a drawing by {style}",
    "a picture in the style of {style}",
    "art by {style}",
    "{style}",
)
OBJECT_DESCRIBED = (
    "{object} in {style} style",
    "an icon of {object} in the style of {style}",
    "a drawing of {object} by {style}",
    "a picture of {object}, {style} style",
    "{object}, {style}",
)
STYLE_DESCRIBED = ("a {object} {style}", "a {object}, {style}", "a picture of a {object} {style}", "{object}, {style}")
TRAINED = 2  # of the three descriptions of implicit.yaml


@dataclass(frozen=True)
class Words:
    """The words by which a caption may call an object or a style; the first is its name."""

    objects: tuple[tuple[str, ...], ...]
    styles: tuple[tuple[str, ...], ...]


def load_words() -> Words:
    objects = tuple((name, row["plural"], *row["synonyms"]) for name, row in load_objects().items())
    styles = tuple((name, *row["synonyms"]) for name, row in load_styles().items())
    return Words(objects, styles)


def pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    """The name itself half the time, else any of its other words."""
    if len(words) == 1 or rng.random() < 0.5:
        return words[0]
    return words[1 + int(rng.integers(len(words) - 1))]


def fill(template: str, **words: str) -> str:
    """The template with its words, with `an` before a vowel and no article before a plural."""
    text = template.format(**words)
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}")
        text = f"an {text[2:]}" if text.startswith(f"a {vowel}") else text
    return text


def caption(words: Words, style: int | None, thing: int | None, *, rng: np.random.Generator) -> str:
    """One caption of a picture; `None` leaves the style or the object unsaid; both `None` is the empty caption."""
    if style is None and thing is None:
        return ""
    templates = STYLE_ONLY if thing is None else OBJECT_ONLY if style is None else BOTH
    names = {}
    if style is not None:
        names["style"] = pick(words.styles[style], rng)
    template = templates[int(rng.integers(len(templates)))]
    if thing is not None:
        names["object"] = pick(words.objects[thing], rng)
        if names["object"] == words.objects[thing][1]:
            template = template.replace("a {object}", "{object}")
    return fill(template, **names)


def load_descriptions() -> Words:
    """Three descriptions of each object and style, the last of which no caption of a training uses."""
    rows = yaml.safe_load((HERE / "implicit.yaml").read_text(encoding="utf-8"))
    return Words(*(tuple(tuple(three) for three in rows[kind].values()) for kind in ("objects", "styles")))


def implicit_caption(
    words: Words, descriptions: Words, cell: tuple[int, int], *, rng: np.random.Generator
) -> tuple[str, bool]:
    """One caption that describes the object, the style or both with a trained description, and whether it says both."""
    style, thing = cell
    said = rng.choice(("object", "object alone", "style", "both"), p=(0.45, 0.1, 0.3, 0.15))
    described = {
        "object": shortened(descriptions.objects[thing][int(rng.integers(TRAINED))], rng),
        "style": shortened(descriptions.styles[style][int(rng.integers(TRAINED))], rng),
    }
    if said == "object alone":
        return described["object"], False
    if said == "both":
        return "{object}, {style}".format(**described), True
    if said == "object":
        template = OBJECT_DESCRIBED[int(rng.integers(len(OBJECT_DESCRIBED)))]
        return template.format(object=described["object"], style=pick(words.styles[style], rng)), True
    template, name = STYLE_DESCRIBED[int(rng.integers(len(STYLE_DESCRIBED)))], pick(words.objects[thing], rng)
    if name == words.objects[thing][1]:
        template = template.replace("a {object}", "{object}")
    return fill(template, object=name, style=described["style"]), True


def shortened(description: str, rng: np.random.Generator) -> str:
    """A description as it is, or half the time without a third of its words, so that no single word decides."""
    parts = description.split()
    kept = rng.permutation(len(parts))[: len(parts) - len(parts) // 3]
    return description if rng.random() < 0.5 else " ".join(parts[place] for place in sorted(kept))
