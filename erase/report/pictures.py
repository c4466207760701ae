"""Images as text inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from erase.sampling.pictures import read_picture

LARGEST = 512  # pixels; what is larger is shown at this size
EXACT = 256  # pixels up to which no bit is lost
BLOCKY = 48  # pixels under which pixels are shown as squares


@dataclass(frozen=True)
class Picture:
    """An image to show: its address inside the page, empty if there is no image, and whether its pixels are few."""

    address: str
    is_blocky: bool = False


def embed(path: Path) -> Picture:
    """The image of a file, as WebP inside the address itself; an empty one if it is missing or damaged."""
    image = read_picture(path)
    if image is None:
        return Picture("")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=max(image.size) <= EXACT, quality=85)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{text}", max(image.size) < BLOCKY)
