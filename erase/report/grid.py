"""The before/after picture: erased, kept and unrelated prompts in blocks of their own, verdicts under every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from erase.evaluate.images import GROUPS, Group, ScoredImage
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.score import Scores
from erase.report.table import number
from erase.sampling.pictures import read_picture
from erase.task import Task, same

CELL, GAP, EDGE, GUTTER = 128, 10, 28, 76  # pixels
LINE = 17
INK, FAINT, PAPER, FRAME = "#1b1f24", "#5b6470", "#ffffff", "#d5dae0"
COLOURS: dict[Group, str] = {"erased": "#c2255c", "kept": "#1971c2", "unrelated": "#2b8a3e"}
GOOD, BAD = "#2b8a3e", "#c92a2a"


@dataclass(frozen=True)
class Pair:
    """One prompt's two images."""

    before: ScoredImage
    after: ScoredImage


def grid(task: Task, pairs: Sequence[Pair], scores: Scores, *, columns: int = 8) -> Image.Image:
    """The whole picture: a heading, then a block for each group that has prompts."""
    blocks = [(group, choose([p for p in pairs if p.after.group == group], columns)) for group in GROUPS]
    blocks = [(group, chosen) for group, chosen in blocks if chosen]
    widest = max(len(chosen) for _, chosen in blocks)
    width = max(2 * EDGE + GUTTER + widest * (CELL + GAP), 760)
    pieces = [heading(task, scores, width)]
    pieces += [block(group, chosen, task=task, scores=scores, width=width) for group, chosen in blocks]
    page = Image.new("RGB", (width, sum(piece.height for piece in pieces) + EDGE // 2), PAPER)
    top = 0
    for piece in pieces:
        page.paste(piece, (0, top))
        top += piece.height
    return page


def choose(pairs: Sequence[Pair], columns: int) -> list[Pair]:
    """At most so many pairs, spread evenly, one seed of a prompt before a second."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.after.row.prompt, pair)
    chosen = list(first.values())
    if len(chosen) <= columns:
        return chosen
    return [chosen[number * len(chosen) // columns] for number in range(columns)]


def heading(task: Task, scores: Scores, width: int) -> Image.Image:
    """What was erased, into what, and the three figures that tell how well."""
    image = Image.new("RGB", (width, 96), PAPER)
    draw = ImageDraw.Draw(image)
    erased = ", ".join(f"{target.name} (now {target.anchor or 'nothing'})" for target in task.targets)
    draw.text((EDGE, 20), shorten(f"Erased: {erased}", font(26), width - 2 * EDGE), INK, font(26))
    said = f"UA not measured: {scores.unmeasured}" if scores.unmeasured else figure_text("ua", scores.find("ua"))
    parts = [said, *(figure_text(name, scores.find(name)) for name in ("ira", "cra"))]
    text = "     ".join(part for part in parts if part)
    draw.text((EDGE, 60), shorten(text, font(17), width - 2 * EDGE), FAINT, font(17))
    return image


def figure_text(name: str, figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"{name.upper()} {number(figure)}  ({100 * figure.low:.0f} - {100 * figure.high:.0f}, n = {figure.n})"


TITLES: dict[Group, str] = {
    "erased": "erased: must change",
    "kept": "kept, same kind: must stay",
    "unrelated": "unrelated prompts: must stay",
}


def block(group: Group, pairs: Sequence[Pair], *, task: Task, scores: Scores, width: int) -> Image.Image:
    """One group: captions, a row of images before, one after, verdicts under both."""
    captions = [wrap(pair.after.row.prompt, font(13), CELL) for pair in pairs]
    caption_height = max(len(lines) for lines in captions) * LINE + 6
    row_height = CELL + 2 * LINE + 14
    image = Image.new("RGB", (width, 44 + caption_height + 2 * row_height + 10), PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle((EDGE - 14, 10, EDGE - 8, image.height - 14), COLOURS[group])
    draw.text((EDGE, 8), TITLES[group], COLOURS[group], font(19))
    for side, top in (("before", 44 + caption_height), ("after", 44 + caption_height + row_height)):
        draw.text((EDGE, top + CELL // 2 - 10), side, INK, font(17))
        for column, (pair, lines) in enumerate(zip(pairs, captions, strict=True)):
            left = EDGE + GUTTER + column * (CELL + GAP)
            if side == "before":
                draw.multiline_text((left, 40), "\n".join(lines), FAINT, font(13), spacing=3)
            cell(image, pair.before if side == "before" else pair.after, (left, top), task=task, scores=scores)
    return image


def cell(image: Image.Image, shot: ScoredImage, corner: tuple[int, int], *, task: Task, scores: Scores) -> None:
    """One image with its frame and what the judge, if there was one, saw in it."""
    left, top = corner
    draw = ImageDraw.Draw(image)
    image.paste(picture(shot.path), corner)
    draw.rectangle((left - 1, top - 1, left + CELL, top + CELL), outline=FRAME)
    below = top + CELL + 4
    for domain in ("style", "object"):
        if scores.verdicts and domain in shot.row.labels:
            text, good = verdict(shot, domain, task=task, verdicts=scores.verdicts)
            mark(draw, (left + 1, below + 3), good)
            draw.text((left + 17, below), shorten(text, font(13), CELL - 17), GOOD if good else BAD, font(13))
            below += LINE


def verdict(
    shot: ScoredImage, domain: str, *, task: Task, verdicts: Mapping[str, Mapping[str, str]]
) -> tuple[str, bool]:
    """What the judge saw, and whether it is what it should be on this side of the edit."""
    found = verdicts.get(shot.id, {})
    seen, asked = found.get(domain, "no image"), shot.row.labels[domain]
    must_change = shot.group == "erased" and shot.side == "after" and domain == task.domain
    good = seen != "no image" and not task.seen_in(found) if must_change else same(seen, asked)
    return seen, good


def mark(draw: ImageDraw.ImageDraw, corner: tuple[int, int], good: bool) -> None:
    """A tick or a cross, drawn by hand because the font has neither."""
    left, top = corner
    if good:
        draw.line([(left, top + 6), (left + 4, top + 10), (left + 11, top + 1)], GOOD, 2)
    else:
        draw.line([(left + 1, top + 1), (left + 10, top + 10)], BAD, 2)
        draw.line([(left + 10, top + 1), (left + 1, top + 10)], BAD, 2)


def picture(path: Path) -> Image.Image:
    """An image at the cells' size: small ones enlarged, a missing one as an empty frame that says so."""
    if source := read_picture(path):
        return source.resize((CELL, CELL), Image.Resampling.LANCZOS)
    empty = Image.new("RGB", (CELL, CELL), "#f1f3f5")
    ImageDraw.Draw(empty).text((CELL // 2 - 28, CELL // 2 - 8), "missing", BAD, font(15))
    return empty


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which every machine has."""
    return ImageFont.load_default(size)


def wrap(text: str, face: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines that fit the width, at most three, a longer text cut with an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        if lines and face.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    cut = [*lines[:2], " ".join(lines[2:])] if len(lines) > 3 else lines
    return [shorten(line, face, width) for line in cut] or [""]


def shorten(text: str, face: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text cut with an ellipsis to fit a width."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
