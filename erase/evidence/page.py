"""The page of a pack: what was found, how sure it is, what it does not show, in words for people who must decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from erase.evidence.stored import Held, part
from erase.report.render import render


def page_of(held: Held, figures: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    """The whole page; the same values give the same bytes."""
    return render(
        "evidence.html.j2",
        result=held.result,
        figures=figures,
        head=head,
        headline=headline(held, figures),
        lead=lead(held),
        facts=list(facts(held, head)),
    )


def headline(held: Held, figures: Mapping[str, Any]) -> str:
    """What was seen of the target before and after, in one sentence."""
    names = " and ".join(str(target["name"]) for target in held.result["task"]["targets"])
    erased = [rate for rate in figures["rates"] if rate["role"] == "erased"]
    images = sum(rate["images"] for rate in erased)
    before, after = (sum(rate[side]["seen"] for rate in erased) for side in ("before", "after"))
    return (
        f"Asked for {names}, the model showed it in {before} of {images} images before the edit and in {after} after it"
    )


def lead(held: Held) -> str:
    """Which edit of which model, and how much was asked."""
    budget, said = part(held.fixed, "budget"), part(held.result, "edit")
    return (
        f"The edit was made by {said.get('method', 'others')} on {held.result.get('model', 'a model')}. It was judged "
        f"by {budget.get('images')} images of {budget.get('prompts')} prompts, half of them before it and half after "
        "it, from the same noise."
    )


def facts(held: Held, head: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and hashes of all that takes part."""
    hashes, budget = part(held.result, "hashes"), part(held.fixed, "budget")
    edited = part(hashes, "edited")
    sampler = {name: value for name, value in part(budget, "sampler").items() if value not in ("", 0, None)}
    yield "base model", f"{held.result.get('model')}, {part(hashes, 'base').get('fingerprint')}"
    yield "edit", str(edited.get("edit") or edited.get("model"))
    for name, sha in part(hashes, "files").items():
        yield f"file {name}", str(sha)
    for name, files in part(hashes, "detectors").items():
        yield f"detector {name}", "\n".join(f"{file} {sha}" for file, sha in files.items()) or "has no files"
    yield "protocol", str(hashes.get("protocol"))
    yield "prompt sets", "\n".join(f"{name} {sha}" for name, sha in part(held.fixed, "sets").items()) or "none"
    yield "code that judged", str(held.result.get("code"))
    yield "code that packed", str(head.get("code"))
    asked = ", ".join(f"{name} {budget.get(name)}" for name in ("questions", "prompts", "seeds", "images"))
    yield "budget", f"{asked}; attacks {', '.join(part(budget, 'attacks')) or 'none'}"
    yield "sampler", ", ".join(f"{name} {value}" for name, value in sampler.items())
    yield "device and precision", f"{held.result.get('device')}, {held.result.get('dtype')}"
    yield "versions", ", ".join(f"{name} {value}" for name, value in part(held.result, "versions").items())
    yield "images", f"{len(part(held.result, 'images'))}, {head.get('images')}"
