"""The package as its users get it: a wheel with its data, a fast command, names that load when they are asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import erase
from erase import registry

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL", "pydantic")
# What an installed package knows, told by itself.
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from erase import registry
from erase.run.pipeline import load_pipeline
from erase.config.prompts import load_prompts
pipelines = {name: len(load_pipeline(name).make_rows()) for name in registry.known("pipelines")}
prompts = {name: load_prompts(name).sha256 for name in registry.known("prompts")}
models = {name: str(registry.PACKAGE / "models" / name) for name in registry.known("models")}
print(json.dumps({"package": str(registry.PACKAGE), "pipelines": pipelines, "prompts": prompts, "models": models}))
"""


def python(*arguments: str, cwd: Path = ROOT) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("installed")
    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def test_an_installed_wheel_finds_its_pipelines_prompts_and_models(installed: Path) -> None:
    told = json.loads(python("-c", ASK, str(installed), cwd=installed))
    assert Path(told["package"]) == installed / "erase"
    assert sorted(told["pipelines"]) == registry.known("pipelines")
    assert sorted(told["prompts"]) == registry.known("prompts")
    assert "emoji" in told["models"]


def test_an_installed_model_is_the_checkouts_byte_for_byte(installed: Path) -> None:
    ours, theirs = (folder / "models/emoji" for folder in (registry.PACKAGE, installed / "erase"))
    files = [path.relative_to(ours) for path in sorted(ours.rglob("*")) if path.is_file()]
    assert files
    assert [file for file in files if (theirs / file).read_bytes() != (ours / file).read_bytes()] == []


def test_a_wheel_carries_the_licence_and_nothing_of_the_workshop(wheel: Path) -> None:
    inside = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert {name.split("/")[0] for name in inside} == {"erase", f"erase-{erase.__version__}.dist-info"}


def test_import_loads_nothing_heavy() -> None:
    loaded = json.loads(python("-c", "import json, sys, erase; print(json.dumps(sorted(sys.modules)))"))
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["list", "methods"]])
def test_asking_loads_no_torch(arguments: list[str]) -> None:
    program = (
        "import json, sys; from erase.cli import run_command; code = run_command(sys.argv[1:]); "
        "print(); print(json.dumps([code, sorted(sys.modules)]))"
    )
    code, loaded = json.loads(python("-c", program, *arguments).splitlines()[-1])
    assert code == 0
    assert [name for name in ("torch", "diffusers", "transformers") if name in loaded] == []


def test_every_public_name_is_found() -> None:
    assert all(getattr(erase, name) is not None for name in erase.__all__)
    assert set(erase.__all__) <= set(dir(erase))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = erase.nothing
