"""Drawing plots as SVG text: elements, scales and their ticks. Colours are left to the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Scale:
    """Maps values `low` .. `high` to pixels `start` .. `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.stop - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        """Round values inside the scale, about so many."""
        rough = (self.high - self.low or 1.0) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def drawing(width: float, height: float, *, label: str, parts: Iterable[Markup], style: str = "plot") -> Markup:
    """A whole SVG that says in words what it shows."""
    start = element("svg", viewBox=f"0 0 {width:g} {height:g}", role="img", **{"class": style, "aria-label": label})
    return Markup(start.removesuffix("/>")) + Markup(">") + Markup("").join(parts) + Markup("</svg>")


def element(name: str, content: str | None = None, **attributes: object) -> Markup:
    """One element; a trailing underscore in an attribute's name is dropped, others become hyphens."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    text = "".join(f' {key}="{escape(_plain(value))}"' for key, value in pairs)
    return Markup(f"<{name}{text}/>" if content is None else f"<{name}{text}>{escape(content)}</{name}>")


def titled(name: str, title: str, **attributes: object) -> Markup:
    """An element that tells more under the pointer."""
    return Markup(str(element(name, "", **attributes)).replace("></", f">{element('title', title)}</"))


def polyline(corners: Sequence[tuple[float, float]], *, style: str) -> Markup:
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners), class_=style)


def text(content: str, x: float, y: float, *, anchor: str = "start", style: str = "") -> Markup:
    """Words at a place; `anchor` start, middle or end."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=style)


def _plain(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
