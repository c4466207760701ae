"""Measures sampling and editing on a card: published architectures at full size, random weights, no network.

    python scripts/bench_gpu.py                       all parts, under ten minutes on one card of 80 GB
    python scripts/bench_gpu.py --device cpu --tiny   every part on tiny models: shows that it runs, measures nothing

Each part is a process of its own with a budget of seconds, after which it is stopped. Figures are written to --out as
they are there, so that what was stopped still tells; a part that failed or ran out of time says so in `stopped`. The
last line is the same JSON.

NAME is sd1, sdxl or flux. `NAME_images_per_second`: of the second batch of ours, with encoding and loading left out.
`NAME_over_plain_call`: that over the rate of plain calls of the pipeline at batch 1, in the same precision.
`NAME_share_of_peak`: counted FLOPs over the card's dense bfloat16 peak. `peak_gb_NAME`: the most that was reserved on
the card while ours was sampled; `predicted_gb_NAME`: what our planning says of the same batch. `bf16_image_difference`:
mean of 255 between images of sd1 in float32 and bfloat16. `esd_bank_seconds`: ours, 200 steps; `esd_literal_seconds`:
200 iterations of the published loop, by the seconds of an evaluation in eight of them. `uce_1000_seconds`,
`identities_100_seconds`, `flux_edit_seconds` (100 targets): the edit with its encoding, the encoders being loaded; 10
targets if tiny. `oom_recovered`: whether images of a batch that does not fit are all there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from random_models import pipeline
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from erase import registry
from erase.config.prompts import Row
from erase.files import write_atomically
from erase.methods.esd import ESD
from erase.models import Model, open_model
from erase.run.options import method_with
from erase.sampling import generate
from erase.sampling.memory import needs_of
from erase.sampling.sampler import Sampler
from erase.task import Target, Task

# Dense bfloat16 FLOP/s of cards, by what their names hold: makers' data sheets.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
PROMPTS = ("a photo of a lighthouse", "a bowl of apples", "a portrait in oil", "a street in the rain")


@dataclass(frozen=True)
class Setting:
    """How a model's images are made: its family, steps, guidance, size, images at once, plain calls beside."""

    family: str
    steps: int
    guidance: float
    size: int
    batch: int
    plain: int


SETTINGS = {
    "sd1": Setting("stable-diffusion", 50, 7.5, 512, 32, 3),
    "sdxl": Setting("stable-diffusion-xl", 30, 5.0, 1024, 16, 3),
    "flux": Setting("flux", 28, 3.5, 1024, 4, 2),
}
# Seconds that a part may take at most: 590 in all.
BUDGETS = {"sd1": 120, "sdxl": 140, "flux": 210, "esd": 120}


@dataclass(frozen=True)
class Bench:
    """Where and how large everything is made, and the file of figures."""

    device: str
    tiny: bool
    out: Path

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.device == "cpu" else torch.bfloat16

    @property
    def on_card(self) -> bool:
        return self.device.startswith("cuda")

    def tell(self, **figures: Any) -> None:
        """Adds figures to the file, there as soon as they are known."""
        known = json.loads(self.out.read_text(encoding="utf-8")) if self.out.is_file() else {}
        write_atomically(self.out, json.dumps(known | figures, indent=1).encode())
        print(json.dumps(figures), file=sys.stderr, flush=True)

    def setting(self, name: str) -> Setting:
        full = SETTINGS[name]
        return Setting(full.family, 2, full.guidance, 64, 2, 1) if self.tiny else full

    def pipe(self, name: str, dtype: torch.dtype | None = None) -> Any:
        """A fresh random pipeline on the device."""
        family = SETTINGS[name].family
        return pipeline(family, tiny=self.tiny, device=self.device, dtype=dtype or self.dtype)

    def open(self, pipe: Any) -> Model:
        return open_model(pipe, torch_dtype=getattr(pipe, "dtype", self.dtype), device=self.device)

    def seconds(self, action: Callable[[], object]) -> float:
        """Seconds of an action, all that it started on the card included."""
        self.wait()
        begun = time.perf_counter()
        action()
        self.wait()
        return time.perf_counter() - begun

    def wait(self) -> None:
        if self.on_card:
            torch.cuda.synchronize()


def rows(count: int) -> list[Row]:
    return [Row(PROMPTS[number % len(PROMPTS)], number) for number in range(count)]


def sampler_of(setting: Setting) -> Sampler:
    return Sampler(steps=setting.steps, guidance=setting.guidance, size=setting.size, batch=setting.batch)


def plain_call(pipe: Any, setting: Setting, steps: int) -> Any:
    """One image by a call of the pipeline alone."""
    return pipe(
        PROMPTS[0],
        num_inference_steps=steps,
        guidance_scale=setting.guidance,
        height=setting.size,
        width=setting.size,
        generator=torch.Generator("cpu").manual_seed(0),
    ).images


def image_flops(pipe: Any, setting: Setting) -> int:
    """Counted operations of one image: those of a call of one step, and of as many more as an image has."""
    counted = []
    for steps in (1, 2):
        with FlopCounterMode(display=False) as counter:
            plain_call(pipe, setting, steps)
        counted.append(counter.get_total_flops())
    return counted[0] + (setting.steps - 1) * (counted[1] - counted[0])


def measure_images(bench: Bench, name: str, pipe: Any) -> None:
    """One model's rate, memory and share of the card's peak, beside plain calls."""
    setting = bench.setting(name)
    plain_call(pipe, setting, 2)
    plain = setting.plain / bench.seconds(
        lambda: [plain_call(pipe, setting, setting.steps) for _ in range(setting.plain)]
    )
    bench.tell(**{f"{name}_plain_images_per_second": round(plain, 4)})
    flops = image_flops(pipe, setting)
    model, sampler = bench.open(pipe), sampler_of(setting)
    if bench.on_card:
        pipe.to("cpu")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rate = second_batch(model, pipe, sampler, batch=setting.batch)
    batch = min(setting.batch, model.fits or setting.batch)
    peak = next((peak for card, peak in PEAKS.items() if bench.on_card and card in torch.cuda.get_device_name()), None)
    bench.tell(
        **{
            f"{name}_images_per_second": round(rate, 4),
            f"{name}_over_plain_call": round(rate / plain, 3),
            f"{name}_tflop_an_image": round(flops / 1e12, 4),
            f"{name}_share_of_peak": None if peak is None else round(rate * flops / peak, 4),
            f"{name}_batch": batch,
            f"peak_gb_{name}": round(torch.cuda.max_memory_reserved() / 1e9, 2) if bench.on_card else None,
            f"predicted_gb_{name}": round(needs_of(model, sampler).peak(batch) / 1e9, 2),
        }
    )
    pipe.to(bench.device)


def second_batch(model: Model, pipe: Any, sampler: Sampler, *, batch: int) -> float:
    """Images a second of the second of two batches: from the last image of the first to its own last."""
    times = [time.perf_counter() for _ in generate.sample(model, rows(2 * batch), sampler, pipe=pipe)]
    first = min(batch, model.fits or batch)
    return (2 * batch - first) / (times[-1] - times[first - 1])


def words(count: int) -> list[str]:
    """So many different names of two words."""
    first = ("Ada", "Boris", "Chloé", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Inés", "Jonas")
    return [f"{first[number % 10]} Sample{number // 10}" for number in range(count)]


def edit_seconds(bench: Bench, model: Model, method: Any, *, kind: str, count: int) -> float:
    """Seconds of the edit that takes so many targets out of a model whose encoders are loaded."""
    count = 10 if bench.tiny else count
    targets = [Target(name, kind, "a person" if kind == "identity" else "art") for name in words(count)]  # type: ignore[arg-type]
    method(model, Task(targets[:1]))  # loads the encoders and hashes the weights
    return round(bench.seconds(lambda: method(model, Task(targets, ["Claude Monet", "Ansel Adams"]))), 3)


def sd1(bench: Bench) -> None:
    """Images of Stable Diffusion 1.x, edits of many targets, precision, and running out of memory."""
    pipe = bench.pipe("sd1")
    measure_images(bench, "sd1", pipe)
    model = bench.open(pipe)
    uce, ours = method_with("uce", {"preset": "paper"}), method_with(registry.DEFAULT_METHOD, {})
    bench.tell(uce_1000_seconds=edit_seconds(bench, model, uce, kind="style", count=1000))
    bench.tell(identities_100_seconds=edit_seconds(bench, model, ours, kind="identity", count=100))
    model.free_encoders()
    bench.tell(bf16_image_difference=precision_difference(bench, pipe))
    bench.tell(**out_of_memory(bench, pipe))


def precision_difference(bench: Bench, pipe: Any) -> float:
    """The mean difference (of 255) between images in float32 and in bfloat16, of the same weights."""
    drawn = []
    sampler = Sampler(steps=4 if bench.tiny else 25, guidance=7.5, size=bench.setting("sd1").size, batch=4)
    for dtype in (torch.bfloat16, torch.float32):
        model = open_model(pipe.to(dtype=dtype), torch_dtype=dtype, device=bench.device)
        pictures = [picture for _, picture in generate.sample(model, rows(4), sampler, pipe=pipe)]
        drawn.append(torch.stack([torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8) for one in pictures]))
    pipe.to(dtype=bench.dtype)
    return round(float((drawn[0].float() - drawn[1].float()).abs().mean()), 4)


def out_of_memory(bench: Bench, pipe: Any) -> dict[str, Any]:
    """Whether a batch that does not fit is made all the same: beside a limit of the card's, or by a raised error."""
    pipe.to(bench.device)
    setting, count, model = bench.setting("sd1"), 4 if bench.tiny else 32, bench.open(pipe)
    sampler = Sampler(steps=2, guidance=7.5, size=setting.size * (1 if bench.tiny else 2), batch=count)
    if bench.on_card:  # room for a quarter of the batch
        torch.cuda.empty_cache()
        total, needs = torch.cuda.get_device_properties(0).total_memory, needs_of(model, sampler)
        torch.cuda.set_per_process_memory_fraction(min(1.0, needs.peak(count // 4) / total))
        limited = "set_per_process_memory_fraction"
        made = list(generate.sample(model, rows(count), sampler, pipe=pipe))
        torch.cuda.set_per_process_memory_fraction(1.0)
    else:
        with failing_above(count // 2):
            made = list(generate.sample(model, rows(count), sampler, pipe=pipe))
        limited = "an error raised for large batches"
    recovered = [row for row, _ in made] == rows(count) and 0 < model.fits < count
    return {"oom_recovered": recovered, "oom_by": limited, "oom_batch_found": model.fits}


def failing_above(most: int) -> Any:
    """A processor without memory for more images than so many, until the block ends."""
    draw = generate.sample_batch

    def short(pipe: Any, given: Any, **named: Any) -> Any:
        if len(given) > most:
            raise torch.OutOfMemoryError("out of memory")
        return draw(pipe, given, **named)

    return patch.object(generate, "sample_batch", short)


def sdxl(bench: Bench) -> None:
    """Images of Stable Diffusion XL."""
    measure_images(bench, "sdxl", bench.pipe("sdxl"))


def flux(bench: Bench) -> None:
    """Images of FLUX.1, and its edit of a hundred targets."""
    pipe = bench.pipe("flux")
    measure_images(bench, "flux", pipe)
    uce = method_with("uce", {"preset": "paper"})
    bench.tell(flux_edit_seconds=edit_seconds(bench, bench.open(pipe), uce, kind="style", count=100))


def esd(bench: Bench) -> None:
    """ESD from the bank, and the published loop, both in float32."""
    from bench_trained import published

    from erase.context import RunContext
    from erase.methods.training.trainer import draws

    model = bench.open(bench.pipe("sd1", torch.float32))
    task = Task([Target("Van Gogh", "style", prompts=("{}",))])
    steps = 4 if bench.tiny else 200
    ours = ESD(steps=steps, layers="x-strict", batch=1, trajectories=2 if bench.tiny else 8)
    bench.tell(esd_bank_seconds=round(bench.seconds(lambda: ours(model, task, work=RunContext())), 2))
    found = []
    for iterations in (1, 3 if bench.tiny else 9):
        made: list[int] = []
        literal = ESD(steps=iterations, layers="x-strict", batch=1)
        spent = bench.seconds(lambda loop=literal, into=made: into.append(published(loop, model, task)[1]))
        found.append((spent, made[0]))
    each = (found[1][0] - found[0][0]) / (found[1][1] - found[0][1])
    stops = [int(torch.randint(50, (1,), generator=draws(0, step))) for step in range(steps)]
    evaluations = sum(2 * stop + 2 + 3 for stop in stops)
    bench.tell(esd_literal_seconds=round(each * evaluations, 2), esd_literal_measured_evaluations=found[1][1])


PARTS: dict[str, Callable[[Bench], None]] = {"sd1": sd1, "sdxl": sdxl, "flux": flux, "esd": esd}


def commands(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Each part with the command that runs it alone."""
    flags = ["--device", options.device, "--out", str(options.out), *(["--tiny"] if options.tiny else [])]
    for part in options.parts:
        yield part, [sys.executable, str(Path(__file__).resolve()), *flags, "--part", part]


def run_parts(options: argparse.Namespace) -> dict[str, Any]:
    """Runs every part in a process of its own, stopped after its budget; all figures."""
    bench = Bench(options.device, options.tiny, options.out)
    card = torch.cuda.get_device_name() if bench.on_card else f"{os.cpu_count()} processors"
    options.out.unlink(missing_ok=True)
    bench.tell(device=card, torch=torch.__version__, tiny=options.tiny)
    stopped, begun = {}, time.perf_counter()
    for part, command in commands(options):
        try:
            code = subprocess.run(command, check=False, timeout=BUDGETS[part]).returncode
            if code:
                stopped[part] = f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            stopped[part] = f"stopped after {BUDGETS[part]} seconds"
        bench.tell(stopped=stopped, seconds=round(time.perf_counter() - begun, 1))
    figures: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", "--quick", action="store_true", help="tiny models, a few steps")
    parser.add_argument("--out", type=Path, default=Path("bench_gpu.json"), help="the file that grows")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cpu" and not options.tiny:
        parser.error("models of full size need a card, and none is here; give --device cpu --tiny to see that it runs.")
    if options.part:
        torch.manual_seed(0)
        PARTS[options.part](Bench(options.device, options.tiny, options.out))
        return
    figures = run_parts(options)
    print(json.dumps(figures))
    raise SystemExit(bool(figures["stopped"]))


if __name__ == "__main__":
    main()
