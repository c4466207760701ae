"""A picture of how the loss went."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

_SIZE, _MARGIN = (640, 320), 40
_SMOOTH = 0.9  # share of the past in the smoothed line


def curve(losses: Sequence[float]) -> bytes:
    """A PNG of every step's loss (grey) and its running mean (blue), with the largest and the last value in words."""
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    finite = [value for value in losses if math.isfinite(value)]
    top = max(finite, default=0.0) or 1.0
    draw.rectangle((_MARGIN, _MARGIN, _SIZE[0] - _MARGIN, _SIZE[1] - _MARGIN), outline="black")
    for values, colour in ((finite, "lightgrey"), (smoothed(finite), "blue")):
        points = [_place(number, value / top, len(values)) for number, value in enumerate(values)]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2)
    last = f"{finite[-1]:.3g}" if finite else "none"
    draw.text((_MARGIN, _MARGIN // 3), f"loss: largest {top:.3g}, last {last}, {len(losses)} steps", fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def smoothed(values: Sequence[float]) -> list[float]:
    """The running mean, in which each value weighs a tenth of what is left."""
    line: list[float] = []
    for value in values:
        line.append(value if not line else _SMOOTH * line[-1] + (1 - _SMOOTH) * value)
    return line


def _place(number: int, share: float, count: int) -> tuple[float, float]:
    width, height = (side - 2 * _MARGIN for side in _SIZE)
    return _MARGIN + width * number / max(count - 1, 1), _MARGIN + height * (1 - share)
