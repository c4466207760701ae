"""The before/after picture: erased, kept and unrelated prompts in blocks of their own, verdicts under every image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from erase.evaluate.images import GROUPS, Group, ScoredImage, target_of
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.questions import evenly
from erase.evaluate.score import Scores
from erase.report.table import number
from erase.sampling.pictures import read_picture
from erase.task import Task, same

CELL, GAP, EDGE, GUTTER = 128, 10, 28, 76  # pixels
BESIDE = 4  # columns up to which a pair's images stand beside each other
NEAR = 4  # pixels between these
LINE = 17
INK, FAINT, PAPER, FRAME = "#1b1f24", "#5b6470", "#ffffff", "#d5dae0"
COLOURS: dict[Group, str] = {"erased": "#c2255c", "kept": "#1971c2", "unrelated": "#2b8a3e"}
GOOD, BAD = "#2b8a3e", "#c92a2a"


@dataclass(frozen=True)
class Pair:
    """One prompt's two images."""

    before: ScoredImage
    after: ScoredImage


@dataclass(frozen=True)
class Layout:
    """Where a block's images are: `after` to the right of `before` if there are few columns, else below it."""

    beside: bool

    @property
    def left(self) -> int:
        """Where the first column begins."""
        return EDGE if self.beside else EDGE + GUTTER

    @property
    def pair(self) -> int:
        """A pair's width."""
        return 2 * CELL + NEAR if self.beside else CELL

    @property
    def step(self) -> int:
        """From one column to the next."""
        return self.pair + (3 * GAP if self.beside else GAP)


def grid(task: Task, pairs: Sequence[Pair], scores: Scores, *, columns: int = 8) -> Image.Image:
    """The whole picture: a heading with a legend, then a block for each group that has prompts."""
    blocks = {
        group: select([p for p in pairs if p.after.group == group], columns, task=task, scores=scores)
        for group in GROUPS
    }
    blocks = {group: chosen for group, chosen in blocks.items() if chosen}
    layout = Layout(columns <= BESIDE)
    width = max(layout.left + EDGE + max(map(len, blocks.values())) * layout.step, 760)
    pieces = [heading(task, scores, width)]
    pieces += [block(group, chosen, task=task, scores=scores, layout=layout) for group, chosen in blocks.items()]
    page = Image.new("RGB", (width, sum(piece.height for piece in pieces) + EDGE // 2), PAPER)
    top = 0
    for piece in pieces:
        page.paste(piece, (0, top))
        top += piece.height
    return page


def select(pairs: Sequence[Pair], columns: int, *, task: Task, scores: Scores) -> list[Pair]:
    """At most so many pairs of one group; of erased ones, each target's in turn.

    Where a judge has looked, only pairs whose image before is what the prompt asks for, if there are any: what the
    base model cannot draw shows nothing about an edit.
    """

    def usable(some: list[Pair]) -> list[Pair]:
        asked = [one for one in some if all(good for *_, good in verdicts(one.before, task, scores))]
        return choose(asked or some, columns)

    if not pairs or pairs[0].after.group != "erased":
        return usable(list(pairs))
    by_target: dict[str, list[Pair]] = {name: [] for name in task.names}
    for pair in pairs:
        by_target[target_of(pair.after.row, task).name].append(pair)
    pools = [usable(own) for own in by_target.values() if own]
    turns = [  # each target begins at another of its prompts, so that these differ
        [(turn, own, pool[(turn + own) % len(pool)]) for turn in range(len(pool))] for own, pool in enumerate(pools)
    ]
    return [pair for _, _, pair in sorted((one for turn in turns for one in turn), key=lambda one: one[:2])][:columns]


def choose(pairs: Sequence[Pair], columns: int) -> list[Pair]:
    """At most so many pairs, spread evenly, one seed of a prompt before a second."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.after.row.prompt, pair)
    return evenly(list(first.values()), columns)


def heading(task: Task, scores: Scores, width: int) -> Image.Image:
    """What was erased, into what, the three figures that tell how well, and what the marks mean."""
    targets = [f"{target.name} (now {target.anchor or 'nothing'})" for target in task.targets]
    title = flow([f"{one}," for one in targets[:-1]] + targets[-1:], font(26), width - 2 * EDGE, begin="Erased: ")
    said = f"UA not measured: {scores.unmeasured}" if scores.unmeasured else figure_text("ua", scores.find("ua"))
    attacked = figure_text("ua_attacked", scores.find("ua_attacked"))
    parts = [attacked, said, *(figure_text(name, scores.find(name)) for name in ("ira", "cra"))]
    figures = flow([part for part in parts if part], font(17), width - 2 * EDGE, between="     ")
    image = Image.new(
        "RGB", (width, 24 + 36 * len(title) + 24 * len(figures) + (2 * LINE if scores.verdicts else 0)), PAPER
    )
    draw = ImageDraw.Draw(image)
    top = 20
    for lines, size, colour, height in ((title, 26, INK, 36), (figures, 17, FAINT, 24)):
        for line in lines:
            draw.text((EDGE, top), shorten(line, font(size), width - 2 * EDGE), colour, font(size))
            top += height
    if scores.verdicts:
        legend(draw, (EDGE, top + 6))
    return image


def legend(draw: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    """What the words under the images and their marks mean."""
    left, top = corner
    said = ("Under each image, what the judge sees in it:", "as it should be", "not as it should be")
    for good, text in zip((None, True, False), said, strict=True):
        if good is not None:
            mark(draw, (left, top + 3), good)
            left += 17
        colour = FAINT if good is None else GOOD if good else BAD
        draw.text((left, top), text, colour, font(13))
        left += int(font(13).getlength(text)) + 16


def figure_text(name: str, figure: Figure | None) -> str:
    if figure is None:
        return ""
    span = f"{100 * figure.low:.0f} - {100 * figure.high:.0f}"
    return f"{MEANINGS[name]} {number(figure)}  ({span}, n = {figure.n})"


TITLES: dict[Group, str] = {
    "erased": "erased: must change",
    "kept": "kept, same kind: must stay",
    "unrelated": "unrelated prompts: must stay",
}
MEANINGS = {
    "ua_attacked": "gone under attack",
    "ua": "target gone (UA)",
    "ira": "same kind kept (IRA)",
    "cra": "the rest kept (CRA)",
}


def block(group: Group, pairs: Sequence[Pair], *, task: Task, scores: Scores, layout: Layout) -> Image.Image:
    """One group: captions, the images before and after, verdicts under both."""
    captions = [wrap(pair.after.row.prompt, font(13), layout.pair) for pair in pairs]
    caption_height = max(len(lines) for lines in captions) * LINE + 6
    row_height = CELL + 2 * LINE + 14
    first = 44 + caption_height + (LINE if layout.beside else 0)
    height = first + (1 if layout.beside else 2) * row_height + 10
    image = Image.new("RGB", (layout.left + EDGE + len(pairs) * layout.step, height), PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle((EDGE - 14, 10, EDGE - 8, image.height - 14), COLOURS[group])
    draw.text((EDGE, 8), TITLES[group], COLOURS[group], font(19))
    for column, (pair, lines) in enumerate(zip(pairs, captions, strict=True)):
        left = layout.left + column * layout.step
        draw.multiline_text((left, 40), "\n".join(lines), INK if layout.beside else FAINT, font(13), spacing=3)
        for place, (side, shot) in enumerate((("before", pair.before), ("after", pair.after))):
            corner = (left + place * (CELL + NEAR), first) if layout.beside else (left, first + place * row_height)
            cell(image, shot, corner, task=task, scores=scores)
            if layout.beside:
                draw.text((corner[0], first - LINE - 2), side, FAINT, font(13))
            elif column == 0:
                draw.text((EDGE, corner[1] + CELL // 2 - 10), side, INK, font(17))
    return image


def cell(image: Image.Image, shot: ScoredImage, corner: tuple[int, int], *, task: Task, scores: Scores) -> None:
    """One image with its frame and what the judge, if there was one, saw in it."""
    left, top = corner
    draw = ImageDraw.Draw(image)
    image.paste(picture(shot.path), corner)
    draw.rectangle((left - 1, top - 1, left + CELL, top + CELL), outline=FRAME)
    below = top + CELL + 4
    for _, text, good in verdicts(shot, task, scores):
        mark(draw, (left + 1, below + 3), good)
        draw.text((left + 17, below), shorten(text, font(13), CELL - 17), GOOD if good else BAD, font(13))
        below += LINE


def verdicts(shot: ScoredImage, task: Task, scores: Scores) -> Iterator[tuple[str, str, bool]]:
    """Each domain that the prompt names, what the judge saw there, and whether that is as it should be on this side.

    Nothing without a judge.
    """
    found = scores.verdicts.get(shot.id, {})
    for domain in (one for one in ("style", "object") if scores.verdicts and one in shot.row.labels):
        seen, must_change = found.get(domain, "no image"), shot.group == "erased" and shot.side == "after"
        if must_change and domain == task.domain:
            yield domain, seen, seen != "no image" and not task.seen_in(found)
        else:
            yield domain, seen, same(seen, shot.row.labels[domain])


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


def flow(
    parts: Sequence[str],
    face: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
    *,
    begin: str = "",
    between: str = " ",
) -> list[str]:
    """The parts in lines that fit the width, none broken; of more than four lines, the last says how many are left."""
    lines = [begin + (parts[0] if parts else "")]
    for index, part in enumerate(parts[1:], start=1):
        if face.getlength(f"{lines[-1]}{between}{part}") <= width:
            lines[-1] = f"{lines[-1]}{between}{part}"
        elif len(lines) == 4:
            return [*lines[:3], f"{lines[3]} and {len(parts) - index} more"]
        else:
            lines.append(part)
    return lines


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
