"""Networks that judge pictures: read of safetensors alone, and nothing that lies beside them is run."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from erase.errors import PickleRefused, ScoreFailed
from erase.evaluate.detectors.classifier import Classifier
from erase.evaluate.networks.clip import ClipFolder
from erase.evaluate.networks.loading import load_network

CLASSIFIER = "AutoModelForImageClassification"
LOADERS: dict[str, Callable[[Path], object]] = {
    "judge": lambda judge: load_network(CLASSIFIER, judge / "style", what="judge"),
    "classifier": lambda judge: Classifier(judge / "style").labels,
    "CLIP": lambda judge: ClipFolder(judge / "clip").side,
}


@pytest.mark.parametrize("what", LOADERS)
def test_a_network_of_pickles_is_refused_with_the_way_to_convert_it(what: str, tiny_copy: Path) -> None:
    for file in (tiny_copy / "judge").glob("*/model.safetensors"):
        torch.save({"weight": torch.ones(1)}, file.with_name("pytorch_model.bin"))
        file.unlink()
    with pytest.raises(PickleRefused, match=r"pytorch_model\.bin is a pickle.*save_pretrained"):
        LOADERS[what](tiny_copy / "judge")


@pytest.mark.parametrize("what", LOADERS)
def test_the_code_of_a_judges_folder_is_never_run_whatever_is_answered(
    what: str, tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(builtins, "input", lambda *_: asked.append(1) or "y")
    for folder in (tiny_copy / "judge/style", tiny_copy / "judge/clip"):
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass E: pass\n", encoding="utf-8")
        own = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kinds = ("AutoModel", "AutoConfig", "AutoTokenizer", CLASSIFIER)
        more = {"model_type": "evilnet", "auto_map": dict.fromkeys(kinds, "evil.E")}
        (folder / "config.json").write_text(json.dumps(own | more), encoding="utf-8")
    if what == "CLIP":  # a class of its own, which asks for no other
        LOADERS[what](tiny_copy / "judge")
    else:
        with pytest.raises(ScoreFailed, match=f"the {what} in .* cannot be loaded"):
            LOADERS[what](tiny_copy / "judge")
    assert not asked
    assert not (tmp_path / "ran").exists()


def test_a_judge_of_half_precision_files_alone_is_read(tiny_model: Path, tiny_copy: Path) -> None:
    for file in (tiny_copy / "judge").glob("*/model.safetensors"):
        file.rename(file.with_name("model.fp16.safetensors"))
    theirs, ours = (load_network(CLASSIFIER, path / "judge/style", what="judge") for path in (tiny_model, tiny_copy))
    assert torch.equal(*(next(one.parameters()) for one in (theirs, ours)))
