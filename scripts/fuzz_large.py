"""Large and twisted inputs, each once, in a process of its own: exit code, seconds and the peak of memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 900


def measured(name: str, command: Sequence[str], *, asked: Sequence[int] = (0,), folder: Path) -> dict[str, Any]:
    """How a command ends, how long it takes, and the most memory that a child of this process has had so far."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    code = 1 if "Traceback" in done.stderr else done.returncode
    last = (done.stderr.strip().splitlines() or [""])[-1]
    facts = {
        "code": code,
        "asked": list(asked),
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": round(_peak(done.stdout)),
        "said": last[:160] if last.startswith("error: ") else "",
    }
    print(f"{name}: {facts}", flush=True)
    return facts


# Tells this process's own peak of memory, which Linux's rusage mixes with that of the process that started it.
_TELL = """
def tell():
    import pathlib, resource
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""
# Runs the command line in this process, and tells its own peak of memory.
_MEASURE = f"""{_TELL}
import sys
from erase.cli import run_command
code = run_command(sys.argv[1:])
print("peak", tell())
sys.exit(code)
"""
# Reads a prompt set and tells how many prompts it has.
_LOAD = f"""{_TELL}
import sys
from erase.config.prompts import load_prompts
print(len(load_prompts(sys.argv[1]).rows(seeds=[0])))
print("peak", tell())
"""


def _peak(printed: str) -> float:
    """The peak in MiB; macOS counts bytes, Linux KiB."""
    lines = [line for line in printed.splitlines() if line.startswith("peak ")]
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return (
        int(lines[-1].split()[1]) / scale if lines else resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / scale
    )


def large() -> dict[str, Any]:
    """The figures of every large input."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write(folder)
        erase, load = ["-c", _MEASURE], ["-c", _LOAD]
        thousand = [flag for number in range(1000) for flag in ("-t", f"Ada Artist {number}")]
        edit = [*erase, "edit", *thousand, "-a", "painting"]
        cases: dict[str, tuple[list[str], tuple[int, ...]]] = {
            "1,000 targets, uce": ([*edit, "--method", "uce", "-o", "uce.safetensors"], (0,)),
            "1,000 targets, redirect": ([*edit, "-o", "redirect.safetensors"], (0, 2)),
            "20,000 prompts, CSV": ([*load, "prompts.csv"], (0,)),
            "20,000 prompts, YAML": ([*load, "prompts.yaml"], (0,)),
            "20,000 prompts as keeps": ([*erase, "edit", "keeps.yaml", "-o", "run"], (0, 2)),
            "a thousand million laughs": ([*erase, "run", "laughs.yaml"], (2,)),
            "3,000 brackets": ([*erase, "run", "brackets.yaml"], (2,)),
            "a model folder of links": (
                [*erase, "edit", "-m", "links", "-t", "noto", "-o", "links.safetensors"],
                (0, 2),
            ),
            "a model folder that links to itself": ([*erase, "edit", "-m", "circle", "-t", "noto"], (2,)),
        }
        found = {name: measured(name, one, asked=asked, folder=folder) for name, (one, asked) in cases.items()}
    return {"large": found}


def _write(folder: Path) -> None:
    prompts = [f"a painting by Ada Artist {number}, in oil" for number in range(20_000)]
    rows = "".join(f'"{one}",{n}\n' for n, one in enumerate(prompts))
    (folder / "prompts.csv").write_text(f"prompt,seed\n{rows}", encoding="utf-8")
    head = "version: '1'\nlicence: CC0-1.0\nsource: a test\nrows:\n"
    rows = "".join(f'- {{prompt: "{one}", seed: 1}}\n' for one in prompts)
    (folder / "prompts.yaml").write_text(head + rows, encoding="utf-8")
    (folder / "keeps.yaml").write_text(
        "name: keeps\nmodel: emoji\ntask: {kind: style, targets: [{name: noto, anchor: blob}], "
        "keeps: {prompts: prompts.csv}}\ngenerate: {prompts: emoji-styles, seeds: [0]}\n",
        encoding="utf-8",
    )
    laughs = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (folder / "laughs.yaml").write_text("\n".join(["a0: &a0 [lol, lol]", *laughs]), encoding="utf-8")
    (folder / "brackets.yaml").write_text("a: " + "[" * 3000 + "]" * 3000, encoding="utf-8")
    (folder / "links").mkdir()
    for path in sorted((ROOT / "erase/models/emoji").iterdir()):
        (folder / "links" / path.name).symlink_to(path, target_is_directory=path.is_dir())
    (folder / "circle").symlink_to(folder / "circle")
