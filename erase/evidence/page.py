"""The page of a pack: what was found, how sure it is, what it does not show, in words for people who must decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erase.evidence.stored import Held
from erase.report.page import render


def page_of(held: Held, figures: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    """The whole page; the same values give the same bytes."""
    return render("evidence.html.j2", result=held.result, fixed=held.fixed, figures=figures, head=head)
