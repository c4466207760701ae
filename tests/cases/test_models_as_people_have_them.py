"""Models that lack something, hold something odd or are too narrow: read as diffusers reads them, or one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from erase.models import open_model
from tests.recipes import command, refused
from tests.tiny import tiny_stable_diffusion

Capture = pytest.CaptureFixture[str]
UNET = "unet/diffusion_pytorch_model.safetensors"
MIDDLE = "mid_block.resnets.0.conv1.weight"


def lfs_pointer(file: Path) -> None:
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n", encoding="utf-8")


def without_a_tensor(file: Path) -> None:
    save_file({key: value for key, value in load_file(file).items() if key != MIDDLE}, file, {"format": "pt"})


def not_finite(file: Path) -> None:
    tensors = load_file(file)
    save_file(tensors | {MIDDLE: tensors[MIDDLE] * float("nan")}, file, {"format": "pt"})


def pickled(file: Path) -> None:
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


COMMANDS = {
    "edit": ("-t", "Claude Monet", "-a", "Pablo Picasso", "-o", "e.safetensors"),
    "generate": ("-p", "a cat", "--steps", 1, "-o", "images"),
}
UNREADABLE = [(done, name) for done in (lfs_pointer, without_a_tensor, pickled) for name in COMMANDS]


@pytest.mark.parametrize(("done", "name"), [*UNREADABLE, (not_finite, "generate")])
def test_a_unet_that_cannot_be_read_is_one_line_before_anything_is_made(
    done: Callable[[Path], None], name: str, tiny_copy: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(tiny_copy / UNET)
    monkeypatch.chdir(tiny_copy.parent)
    line = refused(capsys, name, "-m", tiny_copy, *COMMANDS[name])
    assert "unet" in line
    assert done is not without_a_tensor or MIDDLE in line
    assert not any(Path(made).exists() for made in ("e.safetensors", "images/before"))


def test_a_closed_form_that_changes_nothing_says_so(
    tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    narrow, out = tiny_stable_diffusion(tmp_path / "narrow", width=16), tmp_path / "e.safetensors"
    words = ("-t", "Claude Monet", "-a", "Pablo Picasso", "-k", "Frida Kahlo", "-k", "Béla Bartók")
    said = command(capsys, "edit", "-m", narrow, *words, "--method", "uce", "-o", out)
    assert said.code == 0, said.errors
    assert caplog.text.count("uce has changed next to nothing") == 1
    assert "next to nothing" in command(capsys, "inspect", out).out


def test_a_token_of_several_vectors_is_read_as_the_pipeline_reads_it(tiny_copy: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_copy, local_files_only=True)
    vectors = torch.randn(3, pipe.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(1))
    pipe.load_textual_inversion(vectors, token="<cat-toy>")
    pipe.save_pretrained(tmp_path / "toy")
    model = open_model(tmp_path / "toy")
    theirs, _ = pipe.encode_prompt("<cat-toy>", "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(model.encode(["<cat-toy>"]).states, theirs.detach())
    assert model.encode(["<cat-toy>"]).lengths.tolist() == [5]  # start, three vectors, end


@pytest.mark.parametrize("words", [("-t", "\x01"), ("-t", "noto", "-a", "\x02"), ("-t", "noto", "-k", "\u732b")])
@pytest.mark.parametrize("method", ["mace", "uce", "esd", "safree"])
def test_a_word_that_the_tokenizer_cannot_spell_is_one_line_for_every_method(
    method: str, words: tuple[str, ...], tiny_model: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "e.safetensors"
    line = refused(capsys, "edit", "-m", tiny_model, "--method", method, *words, "-o", out)
    assert line.startswith(f"tiny reads nothing in {words[-1]!r}")
    assert not out.exists()
