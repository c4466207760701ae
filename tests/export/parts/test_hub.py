"""What goes to the hub is what the manifest lists, and a dry run sends nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from erase.errors import BadModel, BadOption
from erase.export.folder import folder
from erase.export.parts.hub import plan, upload
from erase.files import sha256_of
from erase.models import Model
from tests.export.test_lora import made
from tests.recipes import command, refused

pytestmark = pytest.mark.usefixtures("no_network")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(model, made(model), tmp_path_factory.mktemp("hub") / "model", reversal=True)


def test_a_dry_run_lists_every_file_and_sends_nothing(capsys: Capture, exported: Path) -> None:
    said = command(capsys, "push", exported, "--to", "me/my-model", "--dry-run")
    assert said.code == 0
    listed = {line.split()[1] for line in said.out.splitlines()[:-1]}
    assert listed == {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert "would go to me/my-model; nothing was sent" in said.out
    assert "reversal" not in said.out


def test_a_folder_that_is_not_what_it_says_is_not_planned(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "notes.txt").write_text("private", encoding="utf-8")
    with pytest.raises(BadModel, match=r"notes\.txt is not in the manifest"):
        plan(copy, "me/my-model")


def test_a_pickle_is_not_published(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "vae" / "a.bin").write_bytes(b"")
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["vae/a.bin"] = {"sha256": sha256_of(copy / "vae" / "a.bin"), "bytes": 0}
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BadModel, match="pickle"):
        plan(copy, "me/my-model")


def test_a_repository_that_is_none_is_one_line(capsys: Capture, exported: Path) -> None:
    assert "owner/name" in refused(capsys, "push", exported, "--to", "my-model", "--dry-run")


def test_an_upload_sends_the_plans_files_and_no_others(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    sent: dict[str, object] = {}

    class Recorder:
        def create_repo(self, repository: str, **options: object) -> None:
            sent.update(repository=repository, **options)

        def upload_folder(self, **options: object) -> str:
            sent.update(options)
            return "https://hub/commit"

    monkeypatch.setattr(huggingface_hub, "HfApi", Recorder)
    planned = plan(exported, "me/my-model")
    assert upload(planned, private=True) == "https://hub/commit"
    assert sent["private"] is True
    assert sent["allow_patterns"] == [file.name for file in planned.files]


def test_a_hub_that_cannot_be_reached_is_one_line(exported: Path) -> None:
    with pytest.raises(BadOption, match="uploading to me/my-model failed"):
        upload(plan(exported, "me/my-model"), private=True)
