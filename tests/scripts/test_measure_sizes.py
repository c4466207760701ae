"""The sizes that are measured are those of written files: they follow from the shapes, and metadata is small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_sizes.py"
METADATA = 64_000  # bytes at most: a header with all names, twice 100 targets
CHANNELS = (80,) * 5 + (160,) * 5 + (320,) * 6  # of each attention of SD 1.x, a quarter of the published ones


@pytest.mark.slow
def test_sizes_follow_from_the_shapes() -> None:
    run = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--family", "sd1"], check=True, capture_output=True, text=True
    )
    found = json.loads(run.stdout.splitlines()[-1])["sd1"]
    numbers = 2 * sum(rows + 768 for rows in CHANNELS)  # of a LoRA of rank 1: keys and values
    for edit, rank in (("1 targets, last", 1), ("100 targets, last", 100), ("1 targets, all", 76)):
        assert found[edit]["rank"] == rank
        for form, values in (("patch", 4 * 2 * 768), ("lora_float32", 4 * numbers), ("lora_float16", 2 * numbers)):
            assert rank * values < found[edit][form] < rank * values + METADATA
    assert 0 < found["folder"] - found["base"] < METADATA
