"""Images by several processes of one thread each: a small network leaves most of several cores idle.

This process makes the first images itself and hands the last ones out, a batch at a time, until all are made. One that
is slow to start, or ends early, costs nothing but what it would have made. Whoever is handed a batch gives pictures
back through a pipe and writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from PIL import Image

from erase import registry
from erase.config.prompts import Row
from erase.edit import Edit
from erase.models import Model
from erase.models.storage.source import Folder
from erase.sampling.attention import device_here
from erase.sampling.memory import GIB, LEFT, SMALL, memory_here, needs_of, plan_of
from erase.sampling.pipelined import batched
from erase.sampling.sampler import Sampler

_log = logging.getLogger(__name__)
MOST = 8  # processes
WORTH = 2400  # predictions of the network for which a process is worth its start: 48 images of 25 guided steps
BESIDE = GIB // 2  # bytes that a process takes beside the model
READY = b"\x01"
Drawn = tuple[Row, Image.Image]
Draw = Callable[[Sequence[Row]], Iterable[Drawn]]


def processes_for(model: Model, sampler: Sampler, *, edit: Edit | None, images: int) -> int:
    """How many processes of one thread each make so many images; 0 where this one makes them, with all its threads.

    Several do where all of this holds: the CPU draws; the model is small and a folder; torch has several threads, which
    OMP_NUM_THREADS sets; no launcher has started several processes already; there are images enough.
    """
    most = min(torch.get_num_threads(), MOST, images * sampler.evaluations // WORTH)
    launched = os.environ.get("WORLD_SIZE", "1") != "1"
    if most < 2 or launched or not sys.executable or (model.device or device_here()) != "cpu":
        return 0
    acting = (
        {edit.info.method, *(gate.method for gate in edit.gates)} if edit and (edit.guidance or edit.gated) else set()
    )
    if not isinstance(model.source, Folder) or not acting <= set(registry.known("methods")):
        return 0
    needs = needs_of(model, sampler)
    peak = needs.peak(plan_of(model, sampler, "cpu").batch)
    if needs.backbone + needs.decoder + sum(needs.encoders) > SMALL:
        return 0
    most = min(most, int(LEFT * memory_here() / (peak + BESIDE)))
    return most if most > 1 else 0


def drawn_beside(
    model: Model, rows: Sequence[Row], sampler: Sampler, *, edit: Edit | None, draw: Draw, processes: int
) -> Iterator[Drawn]:
    """Each row with its image, in any order: from here, where `draw` makes them, and from processes beside this one."""
    size = plan_of(model, sampler, "cpu").batch
    batches, found = deque(batched(rows, size)), SimpleQueue[Drawn | None]()
    others, threads, left = list[Helper](), torch.get_num_threads(), len(rows)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if beside := min(processes, len(batches)) - 1:
                job = job_of(model, sampler, edit=edit, folder=Path(folder))
                for number in range(beside):
                    others.append(Helper(job, batches, found, said=Path(folder) / f"{number}.txt"))
            while left:
                try:
                    made: Iterable[Drawn | None] = draw(batches.popleft()) if found.empty() else [found.get()]
                except IndexError:  # all that is left is being made by others
                    made = [found.get()]
                for one in filter(None, made):
                    left -= 1
                    yield one
        finally:
            for other in others:
                other.end()
            torch.set_num_threads(threads)


def job_of(model: Model, sampler: Sampler, *, edit: Edit | None, folder: Path) -> dict[str, Any]:
    """What a process is told before its first batch."""
    file = folder / "edit.safetensors"
    if edit is not None:
        edit.save(file)
    dtype = str(model.torch_dtype).removeprefix("torch.")
    told = {"model": str(model.path), "content": model.content, "dtype": dtype, "sampler": asdict(sampler)}
    return told | {"edit": str(file) if edit else ""}


class Helper:
    """A process that is handed batches from the end of a queue as long as there are some.

    Its images go to `found`; after it has ended too early, what it has not made goes back to the queue, and None there.
    """

    def __init__(
        self, job: Mapping[str, Any], batches: deque[tuple[Row, ...]], found: SimpleQueue[Drawn | None], *, said: Path
    ) -> None:
        self._job, self._batches, self._found, self._said, self._ended = job, batches, found, said, False
        path = os.pathsep.join(filter(None, (str(registry.PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        more = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command, pipe = [sys.executable, "-m", "erase.sampling.worker"], subprocess.PIPE
        with said.open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=os.environ | more)
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        self._ended = True
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for stream in filter(None, (self._process.stdin, self._process.stdout)):
            with contextlib.suppress(OSError):  # of what was never read
                stream.close()

    def _serve(self) -> None:
        rest: list[Row] = []
        try:
            self._tell(self._job)
            self._read(len(READY))
            while True:
                rest = list(self._batches.pop())
                self._tell([[row.prompt, row.seed] for row in rest])
                while rest:
                    width, height = (int.from_bytes(self._read(4), "little") for _ in range(2))
                    picture = Image.frombytes("RGB", (width, height), self._read(3 * width * height))
                    self._found.put((rest.pop(0), picture))
        except IndexError:  # all batches are made or being made
            return
        except (OSError, EOFError):
            if rest:
                self._batches.append(tuple(rest))
            if not self._ended:
                why = self._why()
                _log.warning("a process that drew beside this one has ended (%s); its images are made here.", why)
            self._found.put(None)

    def _tell(self, value: Any) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()

    def _read(self, count: int) -> bytes:
        data = self._process.stdout.read(count) if self._process.stdout is not None else b""
        if len(data) < count:
            raise EOFError
        return data

    def _why(self) -> str:
        """Its last words, or its exit code where it had none."""
        code, lines = self._process.wait(), self._said.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last if last and code > 0 else f"exit code {code}"
