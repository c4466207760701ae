"""Measures the house: lines, files, import circles, private imports across folders, hops from a prompt to its pixel.

    python scripts/measure_house.py

Takes seconds; `--quick` does the same. Prints one JSON object as its last line. A circle is a set of files that reach
each other by imports made when they load; imports inside functions count too, with `circles_with_lazy`. A private
import across is one of a name or file with a leading underscore from a folder that is not that file's own or below it.
The hops are the calls that a prompt of a pipeline goes through, file by file, until the network is asked (see ROUTE).
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The walk of a prompt, each entry a function that calls the next; a test checks that each of them still does.
ROUTE = (
    ("erase/run/steps.py", "_generate"),
    ("erase/sampling/ranks.py", "stream_share"),
    ("erase/sampling/generate.py", "stream"),
    ("erase/sampling/generate.py", "_drawn"),
    ("erase/sampling/generate.py", "sample"),
    ("erase/sampling/generate.py", "sample_batch"),
)


def name_of(path: Path) -> str:
    """`erase.cli` of erase/cli/__init__.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.Module, names: set[str], *, lazy: bool) -> Iterator[str]:
    """The package's modules that a module imports: when it loads or, if `lazy`, anywhere."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        or (not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped and node.module in names:
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper in names else node.module


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of two modules or more that reach each other, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            start = stack.index(name)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return found


def private_across(path: Path, tree: ast.Module) -> list[str]:
    """Imports of private files or names from a folder that is neither this file's own nor one above it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "erase":
            for dotted in (f"{node.module}.{alias.name}" for alias in node.names):
                parts = dotted.split(".")
                at = next((i for i, part in enumerate(parts) if part.startswith("_") and part != "__version__"), None)
                home = ".".join(parts[:at])
                if at is not None and not f"{name_of(path.parent / '__init__.py')}.".startswith(f"{home}."):
                    found.append(f"{path.relative_to(ROOT)} imports {dotted}")
    return found


def lengths(tree: ast.Module) -> list[tuple[str, int]]:
    """Every function's name and number of lines."""
    return [
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def used_once(trees: dict[Path, ast.Module]) -> int:
    """Functions under six lines, no methods, whose name the package mentions once besides the definition."""
    mentions = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )
    small = [
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or node.lineno) - node.lineno + 1 < 6
    ]
    return sum(mentions[name] == 1 for name in small)


def measure() -> dict[str, object]:
    paths = sorted((ROOT / "erase").rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    names = {name_of(path) for path in paths}
    graphs = {
        lazy: {name_of(path): set(imported(tree, names, lazy=lazy)) - {name_of(path)} for path, tree in trees.items()}
        for lazy in (False, True)
    }
    functions = sorted(length for tree in trees.values() for _, length in lengths(tree))
    return {
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "files": len(paths),
        "circles": len(circles(graphs[False])),
        "circles_with_lazy": circles(graphs[True]),
        "private_imports_across": sum(len(private_across(path, tree)) for path, tree in trees.items()),
        "hops_prompt_to_pixel": len(ROUTE) - 1,
        "functions_used_once_under_6_lines": used_once(trees),
        "function_median": functions[len(functions) // 2],
        "function_p90": functions[int(0.9 * len(functions))],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    parser.parse_args()
    print(json.dumps(measure()))
