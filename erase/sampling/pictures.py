"""Pictures as files hold them: read whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

_END_OF_PNG = b"IEND\xaeB`\x82"


def read_picture(path: Path) -> Image.Image | None:
    """The picture in a file, read to its end, or None if it is missing, damaged or cut short."""
    try:
        data = path.read_bytes()
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        Image.open(io.BytesIO(data)).verify()  # checksums, which reading the pixels does not look at
    except Exception:  # whatever a decoder raises, a size that no memory holds among them
        return None
    return picture if data.endswith(_END_OF_PNG) or not data.startswith(b"\x89PNG") else None
