"""How commands end on odd inputs: tries and faults of each kind; the last line is one JSON object.

    python scripts/fuzz.py             1,000 inputs of each kind
    python scripts/fuzz.py --quick     50 of each
    python scripts/fuzz.py --large     once each: 1,000 targets, 20,000 prompts, anchors that multiply, links

A fault is an exit code but 0, 2, 3 and 130, a traceback, an error that nobody foresaw, or not exactly one line of it.
The inputs are those of tests/fuzz, the same ones each time; no image is made.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scripts.fuzz_large import large
from tests.fuzz.kinds import KINDS, Bench, Outcome, case, make_bench, quiet


def outcomes(kind: str, bench: Bench, count: int) -> list[Outcome]:
    """What so many inputs of a kind end with; a fault ends nothing."""
    seen: list[Outcome] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        seen.append(case(kind, bench, data.draw))

    draw()
    return seen


def counted(kind: str, seen: list[Outcome], seconds: float) -> dict[str, Any]:
    """The numbers of one kind, and its first faults."""
    faults = [one for one in seen if one.fault]
    for one in faults[:5]:
        print(f"{kind}: {one.fault}: {' '.join(one.command)[:200]}\n{one.errors[-500:]}", file=sys.stderr)
    return {
        "tries": len(seen),
        "codes": {str(code): number for code, number in sorted(Counter(one.code for one in seen).items())},
        "checked": sum("error: checked" in one.errors for one in seen),
        "faults": dict(Counter(one.fault for one in faults)),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Prints a line a kind, and all of them as one JSON object; exit code 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 inputs of each kind")
    parser.add_argument("--large", action="store_true", help="the large inputs instead")
    parser.add_argument("--count", type=int, default=0, help="so many inputs of each kind")
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), help="only this kind; repeatable")
    chosen = parser.parse_args()
    result: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    if chosen.large:
        result |= large()
        print(json.dumps(result))
        sys.exit(any(one["code"] not in one["asked"] for one in result["large"].values()))
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            bench = make_bench(Path(folder))
        for kind in chosen.kind or KINDS:
            started = time.monotonic()
            seen = outcomes(kind, bench, chosen.count or (50 if chosen.quick else 1000))
            result[kind] = counted(kind, seen, time.monotonic() - started)
            print(f"{kind:<10} {result[kind]}", flush=True)
    print(json.dumps(result))
    sys.exit(any(result[kind]["faults"] for kind in chosen.kind or KINDS))


if __name__ == "__main__":
    main()
