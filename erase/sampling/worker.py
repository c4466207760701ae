"""The process that `beside` starts: draws the rows that it is told on its input, and gives their pixels back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import IO, Any

import torch

from erase.config.prompts import Row
from erase.edit import Edit
from erase.errors import EraseError, ModelMismatch
from erase.models import open_model
from erase.sampling.beside import READY
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler


def main() -> None:
    """Draws until its input ends, or nobody reads what it makes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started it ends it
    pictures = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that nothing that is printed comes between pictures
    torch.set_num_threads(1)
    try:
        with contextlib.suppress(BrokenPipeError):
            work(json.loads(sys.stdin.buffer.readline()), pictures)
    except EraseError as error:
        raise SystemExit(str(error)) from error


def work(job: dict[str, Any], pictures: IO[bytes]) -> None:
    """Does a job of `job_of`; raises ModelMismatch where the model is no longer the one that it was."""
    model = open_model(job["model"], torch_dtype=getattr(torch, job["dtype"]), device="cpu")
    if model.content != job["content"]:
        raise ModelMismatch(f"{model.path} has changed since the images were begun; start the command again.")
    sampler, edit = Sampler(**job["sampler"]), Edit.load(job["edit"]) if job["edit"] else None
    pipe = model.pipeline(moved=False)
    pictures.write(READY)
    pictures.flush()
    for line in sys.stdin.buffer:
        rows = [Row(prompt, seed) for prompt, seed in json.loads(line)]
        for _, image in sample(model, rows, sampler, edit=edit, pipe=pipe):
            pictures.write(b"".join(side.to_bytes(4, "little") for side in image.size) + image.tobytes())
            pictures.flush()


if __name__ == "__main__":
    main()
