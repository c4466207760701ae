"""Draws the sheet of what the embedded model draws: a row a style, a column an object.

python scripts/draw_sheet.py [--out docs/sheet.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from erase.config.prompts import load_prompts
from erase.models import open_model
from erase.report.grid import FAINT, font
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler

SIDE, GAP, LEFT, TOP = 64, 6, 84, 26  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/sheet.png"))
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--every", type=int, default=3, help="each so-manieth object only")
    options = parser.parse_args()
    square = load_prompts("emoji-square")
    styles, objects = square.words("style"), square.words("object")[:: options.every]
    rows = square.rows(seeds=[0], where={"object": objects})
    step = SIDE + GAP
    page = Image.new("RGB", (LEFT + step * len(objects), TOP + step * len(styles)), "white")
    pen = ImageDraw.Draw(page)
    for number, style in enumerate(styles):
        pen.text((6, TOP + number * step + 24), style, FAINT, font(14))
    for number, thing in enumerate(objects):
        pen.text((LEFT + number * step + 32, 6), thing, FAINT, font(12), anchor="ma")
    for row, image in sample(open_model(options.model), rows, Sampler(steps=25)):
        place = styles.index(row.labels["style"]), objects.index(row.labels["object"])
        page.paste(image, (LEFT + place[1] * step, TOP + place[0] * step))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    page.save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
