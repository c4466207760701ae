"""The gate on the embedded model, through the command: a good edit passes, and each way to fail is caught by name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from erase.models import open_model
from tests.loading import load_script

SCRIPT = Path(__file__).parents[2] / "scripts" / "show_gate.py"


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both tests leave their images, so that the base model draws once."""
    return tmp_path_factory.mktemp("gate")


@pytest.mark.parametrize("name", ["untouched", "good"])
def test_an_untouched_model_is_caught_and_a_good_edit_passes(gate: ModuleType, out: Path, name: str) -> None:
    case, protocol = gate.CASES[name], gate.protocol_with(gate.QUICK, out, steps=10)
    answer = gate.show(case, open_model("emoji"), place=out / name, out=out, protocol=str(protocol))
    assert answer["kinds"] == list(case.kinds)
    assert answer["exit_code"] == (0 if name == "good" else 3)


@pytest.mark.slow
def test_every_case_is_caught_for_its_own_reason(gate: ModuleType, tmp_path: Path) -> None:
    result = gate.main(["--quick", "--out", str(tmp_path)])
    assert result["passed"] is True
    assert (result["caught"], result["cases"]) == (7, 7), result["each"]
