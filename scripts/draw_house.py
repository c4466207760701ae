"""Draws docs/architecture.svg: the rooms of the house, and the way of one prompt through them.

python scripts/draw_house.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Each row imports from the rows below it alone; tests/test_layout.py checks the imports, and this order against them.
ROWS = (
    (("cli", "one file a command"), ("api", "the commands as functions")),
    (("run", "pipeline, steps, store"),),
    (("evidence", "packs: figures, page, signature, check"),),
    (("report", "page, grid, charts"), ("export", "folder, checkpoint, lora, patch")),
    (("evaluate", "protocol, questions, detectors, gate, result"),),
    (("methods", "one file each | closed_form, training, guidance"),),
    (("sampling", "generate, guides, ranks, device"),),
    (("edit", "Edit: apply, undo, scale, add, save"), ("foreign", "others' files as edits")),
    (("models", "families | storage"), ("config", "YAML, CSV, prompt sets")),
    (("task", "Target, Keep, Task"), ("registry", "a name's file"), ("files, errors, english", "")),
)
WALK = ("run/steps", "sampling/ranks", "sampling/generate", "the network")
WIDTH, HEIGHT, GAP, LEFT = 640, 46, 10, 20


def box(text: str, note: str, *, at: tuple[float, float], width: float) -> str:
    """A room: its name, and what lies in it."""
    x, y = at
    middle = x + width / 2
    lines = [f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="6" class="room"/>']
    lines.append(f'<text x="{middle:.0f}" y="{y + (20 if note else 28):.0f}" class="name">{escape(text)}</text>')
    if note:
        lines.append(f'<text x="{middle:.0f}" y="{y + 36:.0f}" class="note">{escape(note)}</text>')
    return "\n".join(lines)


def draw() -> str:
    """The picture as SVG, readable on a light page and a dark one."""
    parts = []
    for number, row in enumerate(ROWS):
        y = 20 + number * (HEIGHT + GAP)
        width = (WIDTH - GAP * (len(row) - 1)) / len(row)
        parts += [
            box(name, note, at=(LEFT + place * (width + GAP), y), width=width) for place, (name, note) in enumerate(row)
        ]
    total = 20 + len(ROWS) * (HEIGHT + GAP)
    walk = " \u2192 ".join(WALK)
    parts.append(f'<text x="{LEFT + WIDTH / 2:.0f}" y="{total + 18}" class="note">a prompt: {escape(walk)}</text>')
    style = (
        "text{font-family:system-ui,sans-serif;text-anchor:middle}.name{font-size:15px;font-weight:600;fill:#1f4e79}"
        ".note{font-size:12px;fill:#6b7280}.room{fill:#eef4fa;stroke:#7aa5cc}"
        "@media(prefers-color-scheme:dark){.name{fill:#cfe3f7}.note{fill:#9ca3af}.room{fill:#16283a;stroke:#3f6b94}}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2 * LEFT} {total + 36}" role="img">'
    return "\n".join([head, f"<style>{style}</style>", *parts, "</svg>\n"])


if __name__ == "__main__":
    (ROOT / "docs/architecture.svg").write_text(draw(), encoding="utf-8")
