"""Declared sets fetched on request: from a server on this machine, whole or not at all, and never another file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from erase import registry
from erase.cli import run_command
from erase.config.declared import read_manifest
from erase.config.fetching import fetch
from erase.errors import BadPrompts
from erase.files import sha256_of
from tests.config.test_declared import MANIFEST, write


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; of what is called `short` it sends less than it announces."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if not self.path.endswith("short.csv"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"case_number,prompt")
        self.close_connection = True


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a server on this machine gives its files out."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def manifest(tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The manifest of a set `mine`, with the address and the hash of a file that is served."""
    folder, address = served
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump(MANIFEST | {"url": f"{address}/data.csv", "sha256": sha256_of(write(folder))}), encoding="utf-8"
    )
    monkeypatch.setattr(registry, "data_folder", lambda kind: tmp_path)
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".yaml" and path.name != "served")


@pytest.mark.usefixtures("manifest")
def test_the_declared_file_is_fetched_whole(tmp_path: Path, served: tuple[Path, str]) -> None:
    found = fetch("mine", tmp_path / "sets" / "mine.csv")
    assert [line.seed for line in found.lines] == [12, 7, 99]
    assert (tmp_path / "sets" / "mine.csv").read_bytes() == (served[0] / "data.csv").read_bytes()


@pytest.mark.usefixtures("manifest")
def test_another_file_at_that_address_is_refused_and_an_earlier_one_stays(
    tmp_path: Path, served: tuple[Path, str]
) -> None:
    target = tmp_path / "mine.csv"
    fetch("mine", target)
    whole = target.read_bytes()
    with (served[0] / "data.csv").open("a", encoding="utf-8") as file:
        file.write("3,3,a hill,1,B\n")
    with pytest.raises(BadPrompts, match=r"data\.csv is not mine: its sha256 is .* Nothing was written\."):
        fetch("mine", target)
    assert target.read_bytes() == whole
    assert left(tmp_path) == ["mine.csv"]


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize(("file", "said"), [
    ("gone.csv", "answers 404 File not found"),
    ("short.csv", "broke off after 18 of 1000 bytes"),
])  # fmt: skip
def test_what_cannot_be_fetched_leaves_nothing(tmp_path: Path, served: tuple[Path, str], file: str, said: str) -> None:
    with pytest.raises(BadPrompts, match=said):
        fetch("mine", tmp_path / "mine.csv", url=f"{served[1]}/{file}")
    assert left(tmp_path) == []


@pytest.mark.usefixtures("manifest")
def test_without_a_network_one_line_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["fetch", "mine", "--url", "http://127.0.0.1:9/data.csv"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: prompt set mine cannot be fetched from http://127.0.0.1:9/data.csv (")
    assert line.endswith("without a network, get the file elsewhere and give it as mine=PATH.")
    assert left(tmp_path) == []


@pytest.mark.usefixtures("manifest")
def test_the_command_tells_what_it_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["fetch", "mine"]) == 0
    assert "mine.csv  3 prompts, CC0-1.0, sha256 " in capsys.readouterr().out


def test_a_set_of_several_files_has_no_address_and_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(BadPrompts, match="six-cd-dual has no one file to fetch; get it from Artanisax/Six-CD"):
        fetch("six-cd-dual", tmp_path / "a.csv")
    with pytest.raises(BadPrompts, match="is no address to fetch from"):
        fetch("i2p", tmp_path / "a.csv", url="file:///etc/passwd")


def test_every_address_is_of_the_source_that_the_manifest_names() -> None:
    forms = [read_manifest(name) for name in registry.known("declared")]
    addressed = [form for form in forms if form.url]
    assert len(addressed) >= 8
    for form in addressed:
        repository, file = form.source.split(", ")
        assert form.url == f"https://raw.githubusercontent.com/{repository}/HEAD/{file}"
