"""Makes a signed pack of evidence of the embedded model, checks it, forges it, and shows what refuses each forgery.

python scripts/sample_pack.py --out sample
python scripts/sample_pack.py --out sample --quick
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from erase.cli import run_command  # noqa: E402
from erase.evaluate.result import FILE  # noqa: E402
from erase.evidence import sign  # noqa: E402
from erase.evidence.check import check_pack  # noqa: E402
from erase.evidence.pack import Beside, write_pack  # noqa: E402
from erase.models import open_model  # noqa: E402
from tests.evidence.packs import change, hash_anew  # noqa: E402
from tests.evidence.test_tampering import FORGERIES  # noqa: E402

TARGETS = (  # target, its other word, anchor, keeps
    ("noto", "google", "fluent", ("blob", "twemoji", "firefox")),
    ("mono", "blueprint", "contrast", ("blob", "noto", "firefox")),
)


def verified(folder: Path, number: int, protocol: str) -> Path:
    """The folder of a verified edit, with the edit in it."""
    target, synonym, anchor, keeps = TARGETS[number]
    file, out = folder / f"{target}.safetensors", folder / target
    words = [part for keep in keeps for part in ("-k", keep)]
    named = ["-t", target, "--synonym", synonym, "-a", anchor, *words]
    lines = (["edit", *named, "-o", str(file)], ["verify", str(file), "--protocol", protocol, "-o", str(out)])
    if any(run_command([*line, "--quiet"]) == 2 for line in lines):  # which has said why
        raise SystemExit(2)
    shutil.copyfile(file, out / "edit.safetensors")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the pack's folder")
    parser.add_argument("--quick", action="store_true", help="168 images in place of the gate's")
    chosen = parser.parse_args()
    begun, refused = time.perf_counter(), {}
    protocol = "emoji" if chosen.quick else "gate"
    with tempfile.TemporaryDirectory() as place:
        folder, model = Path(place), open_model("emoji")
        public = sign.new_key(folder / "evidence.key")
        beside = Beside(model=model, key=folder / "evidence.key")
        write_pack(verified(folder, 0, protocol), chosen.out, beside)
        write_pack(verified(folder, 1, protocol), folder / "other", Beside(model=model))
        sound = check_pack(chosen.out, signer=public)
        for forge in [*FORGERIES, nothing_else]:
            forged = Path(shutil.copytree(chosen.out, folder / forge.__name__))
            forge(forged, folder / "other")
            hash_anew(forged)
            refused[forge.__name__] = sorted({name for name, _ in check_pack(forged).problems})
    told = {"problems": sound.problems, "verdict": sound.verdict, "exit_code": sound.exit_code, "refused": refused}
    print(json.dumps(told | {"seconds": round(time.perf_counter() - begun, 1)}))


def nothing_else(pack: Path, _: Path) -> None:
    """A change on which nothing else depends, so that the signature alone can catch it."""
    change(pack, FILE, lambda told: told.update(device="another"))


if __name__ == "__main__":
    main()
