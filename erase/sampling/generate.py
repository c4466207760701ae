"""Images of prompts, each depending on model, edit, prompt, seed and sampler settings alone.

An image's name is a hash of just these, so a finished image is never made again, and before and after are paired by
prompt and seed. Bits are the same in any order, after any interruption and with any number of images.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from erase.config.prompts import Row
from erase.edit import Edit
from erase.errors import BadOption
from erase.files import content_hash, write_atomically
from erase.models import Condition, Model, conditions_of
from erase.sampling.attention import device_here, use_attention
from erase.sampling.beside import drawn_beside, processes_for
from erase.sampling.draw import sample_batch
from erase.sampling.guides import NoGuide, guide_of
from erase.sampling.memory import Plan, plan_of
from erase.sampling.pictures import read_picture
from erase.sampling.placing import does_not_fit, encoding, free_cache, is_out_of_memory, offload, place
from erase.sampling.sampler import Sampler
from erase.sampling.suited import check_suited

_log = logging.getLogger(__name__)
FIRST, STATES = 8, 2**30  # prompts that are always encoded at once, and bytes of states that are kept at most
Progress = Callable[[int, int], None]  # images done, images in all


def image_id(model: Model, row: Row, sampler: Sampler, *, edit: Edit | None) -> str:
    """The name of a row's image: a hash of everything that it depends on."""
    parts: dict[str, object] = {"model": model.content, "edit": edit.content if edit else None}
    parts["sampler"] = sampler.settings
    if (device := (model.device or device_here()).partition(":")[0]) != "cpu":  # which rounds otherwise
        parts["device"] = device
    if model.torch_dtype != torch.float32:
        parts["dtype"] = str(model.torch_dtype).removeprefix("torch.")
    return content_hash(parts | {"prompt": row.prompt, "seed": row.seed})[:32]


def image_path(model: Model, row: Row, folder: Path, *, sampler: Sampler, edit: Edit | None) -> Path:
    """Where a row's image lies in a folder."""
    return folder / f"{image_id(model, row, sampler, edit=edit)}.png"


def generate(
    model: Model,
    rows: Sequence[Row],
    folder: Path,
    *,
    edit: Edit | None = None,
    sampler: Sampler | None = None,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Paths of the rows' images in `folder`, in the rows' order; those that are there already are not made again.

    A prompt that is longer than the model reads is cut, as its pipeline does. Raises BadModel for a family that cannot
    be sampled, before anything is made; BadWeights, ModelMismatch, DiskFull.
    """
    made = {row.key: path for row, path in stream(model, rows, folder, edit=edit, sampler=sampler, progress=progress)}
    return tuple(made[row.key] for row in rows)


def stream(
    model: Model,
    rows: Sequence[Row],
    folder: Path,
    *,
    edit: Edit | None = None,
    sampler: Sampler | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Row, Path]]:
    """Each different row with its image's path, in the rows' order, each as soon as its image is there.

    Raises what `generate` raises, when the first one is asked for.
    """
    sampler = sampler or Sampler()
    model.check_sampling()
    check_suited(model, sampler)
    unique = {row.key: row for row in rows}
    paths = {key: image_path(model, row, folder, sampler=sampler, edit=edit) for key, row in unique.items()}
    missing = {key: row for key, row in unique.items() if not is_original(paths[key])}
    tell_changed([paths[key] for key in missing])
    report = progress or (lambda done, total: None)
    report(len(unique) - len(missing), len(unique))
    images = _drawn(model, list(missing.values()), sampler, edit=edit, whole=len(unique)) if missing else iter(())
    for key, row in unique.items():
        while key in missing:
            made, image = next(images)
            write_atomically(paths[made.key], png(image, made, name=paths[made.key].stem))
            del missing[made.key]
            report(len(unique) - len(missing), len(unique))
        yield row, paths[key]


def _drawn(
    model: Model, rows: Sequence[Row], sampler: Sampler, *, edit: Edit | None, whole: int
) -> Iterator[tuple[Row, Image.Image]]:
    """Each row with its image, in any order, from one process or several.

    By how many does not depend on what is missing of the `whole`, so that images round alike after an interruption.
    """
    processes = processes_for(model, sampler, edit=edit, images=whole)
    if not processes:
        return sample(model, rows, sampler, edit=edit)
    pipe = cache(lambda: model.pipeline(moved=False))

    def draw(part: Sequence[Row]) -> Iterator[tuple[Row, Image.Image]]:
        return sample(model, part, sampler, edit=edit, pipe=pipe())

    return drawn_beside(model, rows, sampler, edit=edit, draw=draw, processes=processes)


def sample(
    model: Model, rows: Sequence[Row], sampler: Sampler, *, edit: Edit | None = None, pipe: Any = None
) -> Iterator[tuple[Row, Image.Image]]:
    """Each row with its image, batch by batch; each distinct prompt is encoded once.

    `pipe` is the model's pipeline, if it is loaded already; it is given back as it was, but for where it is. Raises
    BadOption, OutOfMemory where not even one image fits.
    """
    device = model.device or device_here()
    plan = plan_of(model, sampler, device)
    guide = guide_of(edit, model, max_sequence_length=sampler.max_sequence_length)
    if type(guide) is not NoGuide:
        if plan.offload == "layers":
            raise BadOption("a method that acts while sampling needs its network whole: give offload: model or none.")
        if model.true_cfg and sampler.true_guidance <= 1:
            _log.warning("with one prediction a step a guard can only change the prompt's: give true_guidance over 1.")
    _log.log(logging.INFO if plan.offload == "none" else logging.WARNING, "%s: %s", device, plan.why)
    pipe = model.pipeline(moved=False) if pipe is None else pipe
    weights = edit.ungated.apply(pipe) if edit and not edit.guidance else contextlib.nullcontext()
    with weights, guide.attached(pipe):
        offload(pipe, device, plan.offload)
        done = 0
        while done < len(rows):
            with encoding(pipe, device, plan.offload):
                part, conditions = encoded(pipe, rows[done:], sampler)
            place(pipe, device, plan.offload, pixels=plan.pixels)
            use_attention(pipe, sampler.attention)
            draw = partial(sample_batch, pipe, conditions=conditions, sampler=sampler, guide=guide)
            for row, pixels in in_batches(model, part, draw, plan=plan, device=device):
                yield row, to_image(pixels)
            done += len(part)


def encoded(pipe: Any, rows: Sequence[Row], sampler: Sampler) -> tuple[Sequence[Row], dict[str | None, Condition]]:
    """The first rows, as many as STATES bytes hold the prompts' conditions of, and these."""
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    conditions = conditions_of(pipe, prompts[:FIRST], **sampler.encoding)
    room = max(FIRST, STATES // (4 * conditions[None].states.numel()))
    if rest := prompts[FIRST:room]:
        conditions |= conditions_of(pipe, rest, **sampler.encoding)
    end = next((number for number, row in enumerate(rows) if row.prompt not in conditions), len(rows))
    return rows[:end], conditions


def in_batches(
    model: Model, rows: Sequence[Row], draw: Callable[[Sequence[Row]], Tensor], *, plan: Plan, device: str
) -> Iterator[tuple[Row, Tensor]]:
    """Each row with what is drawn of it, so many at once; half of that from where memory runs out.

    The number that was found to fit is kept with the model. Raises OutOfMemory.
    """
    size, start = min(plan.batch, model.fits or plan.batch), 0
    while start < len(rows):
        part = tuple(rows[start : start + size])
        filled = part + (part[0],) * (size - len(part) if plan.filled else 0)
        try:
            drawn = draw(filled)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            drawn = None
        if drawn is None:  # told outside of the handler, which holds what the failed batch has computed
            if size == 1:
                raise does_not_fit(device, plan.why)
            size = model.fits = size // 2
            free_cache(device)
            _log.warning("%s is out of memory; going on with %d at once.", device, size)
            continue
        yield from zip(part, drawn, strict=False)
        start += len(part)


def to_image(pixels: Tensor) -> Image.Image:
    """Pixels [3, height, width] in 0 .. 1 as an 8-bit picture."""
    array = (pixels.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(array))


def png(image: Image.Image, row: Row, *, name: str) -> bytes:
    """The picture as a PNG file that says which prompt and seed it shows, what it is called and which pixels it has."""
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("prompt", row.prompt)
    notes.add_text("seed", str(row.seed))
    notes.add_text("image", name)
    notes.add_text("pixels", pixel_hash(image))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=notes)
    return buffer.getvalue()


def is_original(path: Path) -> bool:
    """Whether a file is the picture that was made under this name: whole, not another's, not painted over."""
    picture = read_picture(path)
    if picture is None:
        return False
    return picture.info.get("image") == path.stem and picture.info.get("pixels") == pixel_hash(picture)


def pixel_hash(picture: Image.Image) -> str:
    """SHA-256 of a picture's size and pixels, in hex."""
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()


def tell_changed(paths: Sequence[Path]) -> None:
    """Says in one line how many of these images, which are made again, are there in another form."""
    if found := [path for path in paths if path.is_file()]:
        count = "1 image is" if len(found) == 1 else f"{len(found)} images are"
        _log.warning("%s not as made (first: %s) and made again.", count, found[0])
