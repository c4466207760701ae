"""House rules that a machine can measure: imports run one way, names have their tests, things stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from erase import registry

ROOT = Path(__file__).parent.parent
# A module imports from its own part or from those further down, never upwards.
LEVELS = (
    {"__main__"},
    {"api"},
    {"cli"},
    {"run"},
    {"evidence"},
    {"report", "export", "attacks"},
    {"evaluate"},
    {"methods"},
    {"sampling"},
    {"foreign", "context"},
    {"edit"},
    {"edit_file"},
    {"models", "changes", "effect"},
    {"config"},
    {"options"},
    {"registry"},
    {"task"},
    {"files", "english"},
    {"errors", "process"},
)
TESTS = {"methods": "methods", "exports": "export", "detectors": "evaluate/detectors", "attacks": "attacks"}


@dataclass(frozen=True)
class Function:
    """A function's place, length in lines and number of positional arguments."""

    place: str
    lines: int
    positional: int


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def part_of(module: str) -> str:
    """`cli` of `erase.cli.run`; empty for the package itself."""
    return module.removeprefix("erase").removeprefix(".").partition(".")[0]


def level_of(part: str) -> int:
    return next(number for number, parts in enumerate(LEVELS) if part in parts)


def imports(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports anywhere in it, the typing-only ones left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "erase")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "erase":
            # `from erase import registry` imports the module erase.registry
            deeper = node.module == "erase"
            yield from (f"erase.{alias.name}" if deeper else str(node.module) for alias in node.names)


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            positional = [name for name in arguments if name not in ("self", "cls")]
            place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            yield Function(place, (node.end_lineno or node.lineno) - node.lineno + 1, len(positional))


def modules() -> list[tuple[Path, str]]:
    files = [path for path in sources("erase") if path != ROOT / "erase/__init__.py"]
    return [(path, path.relative_to(ROOT / "erase").parts[0].removesuffix(".py")) for path in files]


def test_imports_run_one_way() -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path, part in modules()
        for module in imports(path)
        if part_of(module) not in ("", "__version__", part) and level_of(part_of(module)) <= level_of(part)
    ]
    assert upward == []


def test_methods_know_no_model_family() -> None:
    families = [path.stem for path in (ROOT / "erase/models/families").glob("*.py") if not path.stem.startswith("_")]
    assert families
    forbidden = {f"erase.models.families.{family}" for family in families}
    seen = [(path, module) for path, part in modules() if part == "methods" for module in imports(path)]
    assert seen
    assert [pair for pair in seen if pair[1] in forbidden] == []


@pytest.mark.parametrize("kind", sorted(TESTS))
def test_every_name_has_its_test_file(kind: str) -> None:
    known = registry.known(kind)
    assert known
    missing = [name for name in known if not (ROOT / "tests" / TESTS[kind] / f"test_{name}.py").is_file()]
    assert missing == []


def test_every_method_is_used_by_a_pipeline() -> None:
    pipelines = [
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "pipelines").rglob("*.yaml"))
    ]
    assert set(registry.known("methods")) <= {pipeline["edit"]["method"] for pipeline in pipelines}


def test_every_pipeline_is_called_as_its_file_and_its_folder() -> None:
    folder = ROOT / "pipelines"
    paths = sorted(folder.rglob("*.yaml"))
    assert {path.parent.name for path in paths} == {"pipelines", "sd", "sdxl", "flux"}
    called = ["-".join(path.relative_to(folder).with_suffix("").parts) for path in paths]
    assert called == [yaml.safe_load(path.read_text(encoding="utf-8"))["name"] for path in paths]


def test_no_file_has_more_than_350_lines() -> None:
    long = [
        path
        for path in sources("erase", "scripts", "tests")
        if len(path.read_text(encoding="utf-8").splitlines()) > 350
    ]
    assert long == []


def test_no_function_has_more_than_50_lines_and_nine_in_ten_have_25_at_most() -> None:
    measured = [function for path in sources("erase", "scripts") for function in functions(path)]
    assert [function for function in measured if function.lines > 50] == []
    assert sorted(function.lines for function in measured)[int(0.9 * len(measured))] <= 25


def test_no_function_takes_more_than_three_positional_arguments() -> None:
    measured = [function for path in sources("erase", "scripts") for function in functions(path)]
    assert [function.place for function in measured if function.positional > 3] == []


def test_no_input_is_checked_by_an_assert() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("erase")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_nothing_keeps_state_in_a_module() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("erase")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Global)
    ]
    assert found == []
