"""Renders the icon sets to one array of pictures: every style times every object.

npm install --prefix .build/icons $(python scripts/embedded/icons.py --packages)
python scripts/embedded/icons.py
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
import yaml
from PIL import Image

HERE = Path(__file__).parent
BUILD = HERE.parent.parent / ".build"
CANVAS = 256  # pixels of the stored square; the training pictures are 64
MARGIN = 20  # white on each side of the canvas, so that a shift cuts nothing off


def load_objects() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((HERE / "objects.yaml").read_text(encoding="utf-8"))


def load_styles() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((HERE / "styles.yaml").read_text(encoding="utf-8"))


def icon_name(name: str, row: dict[str, Any], naming: str | None) -> str:
    """The icon's name inside a set, by that set's naming."""
    default = row.get("icon", name)
    if naming == "fxemoji":
        return row.get("fxemoji", default.replace("-", ""))
    return row.get(naming, default) if naming else default


def find_icon(icons: dict[str, Any], name: str) -> dict[str, Any]:
    """The icon's body and box; an alias is followed; raises KeyError if the set lacks it."""
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    return icons["icons"][name]


def to_svg(icons: dict[str, Any], icon: dict[str, Any], ink: str) -> str:
    box = {key: icon.get(key, icons.get(key, other)) for key, other in _BOX.items()}
    body = icon["body"].replace("currentColor", ink)
    view = f"{box['left']} {box['top']} {box['width']} {box['height']}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{box["width"]}" height="{box["height"]}" viewBox="{view}">{body}</svg>'
    )


_BOX = {"left": 0, "top": 0, "width": 16, "height": 16}


def render(svg: str) -> np.ndarray:
    """The icon on white, [CANVAS, CANVAS, 3] bytes."""
    side = CANVAS - 2 * MARGIN
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side * 2, height=side * 2))
    drawing = Image.open(io.BytesIO(png)).convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)
    page = Image.new("RGBA", (CANVAS, CANVAS), "white")
    page.alpha_composite(drawing, (MARGIN, MARGIN))
    return np.asarray(page.convert("RGB"))


def render_all(modules: Path) -> np.ndarray:
    """All icons, [styles, objects, CANVAS, CANVAS, 3] bytes, in the order of the two YAML files."""
    objects, pictures = load_objects(), []
    for style in load_styles().values():
        icons = json.loads((modules / style["package"] / "icons.json").read_text(encoding="utf-8"))
        for name, row in objects.items():
            icon = find_icon(icons, icon_name(name, row, style.get("names")))
            pictures.append(render(to_svg(icons, icon, style.get("ink", "#000000"))))
    return np.stack(pictures).reshape(len(load_styles()), len(objects), CANVAS, CANVAS, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", action="store_true", help="print the npm packages to install, and stop")
    parser.add_argument("--modules", type=Path, default=BUILD / "icons" / "node_modules")
    options = parser.parse_args()
    if options.packages:
        print(*sorted(style["package"] for style in load_styles().values()))
        return
    pictures = render_all(options.modules)
    BUILD.mkdir(exist_ok=True)
    np.save(BUILD / "icons.npy", pictures)
    print(f"{BUILD / 'icons.npy'}: {pictures.shape[0]} styles x {pictures.shape[1]} objects")


if __name__ == "__main__":
    main()
