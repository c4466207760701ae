"""What the script says of every family: targets move, keeps do not, exports draw the same, calls are the pipelines'."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_families import FAMILIES

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_families.py"


@pytest.mark.slow
def test_what_holds_for_one_family_holds_for_all() -> None:
    run = subprocess.run([sys.executable, SCRIPT, "--quick"], check=True, capture_output=True, text=True)
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["names"] == list(FAMILIES)
    assert found["largest_difference_from_plain_call"] < 1e-4
    for figures in found["families"].values():
        assert figures["target_moved"] > 1.0 > 0.1 > figures["keep_moved"]
        assert figures["verified_by_a_callable"] == "passed"
        assert figures["folder_differs"] == 0.0
        assert figures["lora_differs"] <= 1.0
