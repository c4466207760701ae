"""What English asks of words that are put into prompts: the article before one, and its plural."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

_NUMBER = re.compile(r"\d+")


@lru_cache(maxsize=4096)
def article(word: str) -> str:
    """The indefinite article before a word: `an` for "hourglass"'s "hour", `a` for "unicorn", `an` for "8-bit cat"."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", word) if not unicodedata.combining(sign)).strip()
    said = _NUMBER.sub(lambda number: _said(number[0]) if number.start() == 0 else number[0], plain)
    return str(_engine().a(said)).partition(" ")[0].lower() if said else "a"


@lru_cache(maxsize=4096)
def plural(word: str) -> str:
    """The plural of a noun; the word itself where there is none."""
    return str(_engine().plural_noun(word) or word)


def _said(number: str) -> str:
    """The first words of a number read aloud: 1850 is eighteen fifty."""
    is_year = len(number) == 4 and number[1:3] != "00"
    return str(_engine().number_to_words(number[:2] if is_year else number))


@lru_cache(maxsize=1)
def _engine() -> Any:
    import inflect

    return inflect.engine()
