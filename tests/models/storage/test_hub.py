"""A model of the hub is opened by its id, from the cache without a network, and said in one line if it is not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from erase.errors import BadModel, UnknownName
from erase.export.folder import folder
from erase.models import Model, open_model
from erase.models.storage.hub import hub_id
from erase.registry import is_hub_id
from tests.export.test_lora import made
from tests.recipes import command, contents, refused, tiny_recipe, write_recipe

pytestmark = pytest.mark.usefixtures("no_network")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def fetched(cache: Path, tiny_model: Path) -> Path:
    """The tiny model as the hub's library leaves what it fetched: links into a folder of blobs."""
    repository = cache / "models--ann--tiny"
    for name, data in contents(tiny_model).items():
        if not name.startswith("judge/"):
            blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
            place = repository / "snapshots" / COMMIT / name
            for path in (blob, place):
                path.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(data)
            place.symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT, encoding="utf-8")
    return repository / "snapshots" / COMMIT


def test_what_was_fetched_before_is_opened_without_a_network(fetched: Path, model: Model) -> None:
    opened = open_model("ann/tiny")
    assert (opened.path.resolve(), opened.title) == (fetched.resolve(), "ann/tiny")
    assert opened.fingerprint == model.fingerprint
    assert open_model(f"ann/tiny@{COMMIT}").path == opened.path


def test_it_is_exported_and_the_card_names_its_id(fetched: Path, model: Model, tmp_path: Path) -> None:
    opened = open_model("ann/tiny")
    ours, theirs = (folder(one, made(one), tmp_path / name) for one, name in ((opened, "hub"), (model, "plain")))
    assert not any(path.is_symlink() for path in ours.rglob("*"))
    head = yaml.safe_load((ours / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (head["base_model"], head["base_model_relation"]) == ("ann/tiny", "finetune")
    (differs, also) = (name for name, data in contents(ours).items() if contents(theirs).get(name) != data)
    assert {differs, also} == {"README.md", "manifest.json"}


def test_a_link_out_of_the_cache_is_refused(fetched: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("secret", encoding="utf-8")
    (fetched / "vae/extra.json").symlink_to(tmp_path / "secret.json")
    opened = open_model("ann/tiny")
    with pytest.raises(BadModel, match="leads out of the model"):
        folder(opened, made(opened), tmp_path / "out")


def test_without_a_network_what_was_never_fetched_is_one_line(
    capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path
) -> None:
    line = refused(capsys, "edit", "-m", "ann/other", "-t", "noto", "-o", tmp_path / "edit.safetensors")
    assert "ann/other is no path here, and the hub did not give it" in line
    assert not (tmp_path / "edit.safetensors").exists()


def test_only_weights_that_are_read_are_asked_for(
    cache: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(repository: str, **options: object) -> str:
        asked.append((repository, options))
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    open_model("ann/tiny@v1")
    ((repository, options),) = asked
    assert (repository, options["revision"]) == ("ann/tiny", "v1")
    assert "*/*.safetensors" in options["allow_patterns"]
    assert not any(
        pattern.endswith((".bin", ".ckpt", "*")) for pattern in options["allow_patterns"] if "LIC" not in pattern
    )
    assert "*.fp16.*" in options["ignore_patterns"]


def test_half_precision_is_fetched_where_there_is_nothing_else(
    cache: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    asked: list[object] = []

    def answer(repository: str, *, ignore_patterns: list[str], **options: object) -> str:
        asked.append(ignore_patterns)
        return str(tmp_path / "empty" if ignore_patterns else tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    assert open_model("ann/tiny").path == tiny_model
    assert len(asked) == 2


@pytest.mark.parametrize("name", ["emoji2", "a/b/c", "./ann/tiny", "../tiny", "ann/", "/ann/tiny", "models/base"])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *given, **more: pytest.fail("asked"))
    assert not is_hub_id(name)
    with pytest.raises(UnknownName, match="no such path exists"):
        open_model(name)
    assert hub_id(Path(name)) == ""


def test_a_pipeline_names_an_id_and_keeps_it(capsys: pytest.CaptureFixture[str], fetched: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, Path("ann/tiny")) | {"score": [], "export": ["patch"]}
    said = command(capsys, "run", write_recipe(tmp_path, recipe), "-o", tmp_path / "run")
    assert said.code == 0, said.errors
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text(encoding="utf-8"))["model"] == "ann/tiny"


def test_the_command_takes_an_id(capsys: pytest.CaptureFixture[str], fetched: Path, tmp_path: Path) -> None:
    said = command(capsys, "edit", "-m", "ann/tiny", "-t", "noto", "-a", "blob", "-o", tmp_path / "edit.safetensors")
    assert said.code == 0, said.errors
