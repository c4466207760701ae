"""Strategies for what people and programs put into files: odd words, odd values, and mappings that were changed."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

WORDS = [
    "", " ", "noto", "Noto", "NOTO ", "Van Gogh", "Bob Ross", "a cat in noto style", "no{}to", "{color}", "{}", "{",
    "}}", "{0.__class__}", "{style}", "%s", "\ud800", "\0", "\x1b[31m", "\n",
    "a\nb", "\u202e", "é", "Ａ", "ﬁ", "\U0001f600",
    "ß" * 80, "a" * 300, "noto " * 90, "b/" * 200, "../x", "/", ".", "..", "~nosuchuser/x", "~", "C:\\x", "nul", "1:2",
    "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "[bold]", "[/]", "nan", "inf", "1e309", "0x10", "2001-13-45",
    "true", "null", "-", "--out",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 7, 50, 101, 1001, 2**31, 2**63 - 1, 2**63, 2**64, -(2**64), 10**11, 10**400]
PLAIN = ["noto", "blob", "twemoji", "cat", "dog", "Vincent van Gogh", "a cat in noto style", "a picture of a dog"]
texts = st.one_of(st.sampled_from(PLAIN), st.sampled_from(PLAIN), st.sampled_from(WORDS), st.text(max_size=12))
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(-5, 50))
floats = st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, 0.5, 1.0, 1e308, -1e308, 1e-320]))
leaves = st.one_of(st.none(), st.booleans(), numbers, floats, texts)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container below a value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        one = pending.pop()
        keys = list(one) if isinstance(one, dict) else list(range(len(one))) if isinstance(one, list) else []
        found += [(one, key) for key in keys]
        pending += [one[key] for key in keys]
    return found


def like(value: object) -> st.SearchStrategy[Any]:
    own = {bool: st.booleans(), int: st.integers(0, 50), float: st.floats(0, 2), str: texts}
    return own.get(type(value), values)


@st.composite
def changed(draw: st.DrawFn, value: Any, *, most: int = 3, kinds: st.SearchStrategy[Any] = values) -> Any:
    """The value with up to `most` changes: a part replaced, taken out, doubled, wrapped, or with a key renamed.

    What replaces a part is of its type half the time, so that what is read is often what is meant.
    """
    value = copy.deepcopy(value)
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, most)))):
        found = places(value)
        if not found:
            return draw(kinds)
        holder, key = draw(st.sampled_from(found))
        change = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "wrap", "add")))
        if change == "replace":
            holder[key] = draw(like(holder[key]) if draw(st.booleans()) else kinds)
        elif change == "wrap":
            holder[key] = [holder[key]] * draw(st.integers(0, 2))
        elif change == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(draw(kinds))
        else:
            holder[draw(texts)] = holder.pop(key) if change == "rename" else draw(kinds)
    return value


@st.composite
def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes: mostly as they are, else cut, or with other bytes put in or over them."""
    change = draw(st.sampled_from((*["no"] * 12, "cut", "insert", "over")))
    if change == "no" or not data:
        return data
    place = draw(st.integers(0, len(data)))
    piece = draw(
        st.one_of(st.sampled_from([b"\xff\xfe", b"\0", b'"', b"[" * 3000, b"\r", b"&a [*a]"]), st.binary(max_size=8))
    )
    return (
        data[:place]
        if change == "cut"
        else data[:place] + piece + data[place + (len(piece) if change == "over" else 0) :]
    )
