"""A vision language model as a judge: what its score is, and what is no answer. On a tiny random LLaVA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from erase.errors import ScoreFailed
from erase.evaluate.detections import examine
from erase.evaluate.detectors.vlm import Vlm
from erase.evaluate.result import hashes_of

WORDS = ["<unk>", "<s>", "</s>", "<pad>", "<image>", "yes", "no", "perhaps", "does", "it", "show", "a", "cat", "dog"]
QUESTION = "does it show a {}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of two layers whose answers are yes or no, by the sign of one direction of its last state."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Sequence as InTurn
    from tokenizers.pre_tokenizers import Split, Whitespace
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("models") / "tiny vlm"
    tokens = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokens.pre_tokenizer = InTurn([Split("<image>", "isolated"), Whitespace()])
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, extra_special_tokens={"image_token": "<image>"}, **named
    )
    side = {"height": 16, "width": 16}
    eyes = CLIPImageProcessorPil(size=side, crop_size=side, do_center_crop=False)
    LlavaProcessor(
        eyes, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(folder)
    sees = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    says = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LlavaForConditionalGeneration(
            LlavaConfig(vision_config=sees, text_config=says, image_token_index=4, vision_feature_layer=-1)
        )
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" not in name:
                value.mul_(20)
        head = model.lm_head.weight
        direction = torch.randn(16, generator=torch.Generator().manual_seed(1))
        head.zero_()
        head[5], head[6] = direction, -direction
    model.save_pretrained(folder)
    return folder


def pictures(count: int = 4) -> list[Image.Image]:
    rng = np.random.default_rng(2)
    return [Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(count)]


def share_of_yes(folder: Path, picture: Image.Image, label: str) -> float:
    """By transformers' own generation: the scores of the one token that it would write."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=picture, text=f"<image>\n{QUESTION.replace('{}', label)}", return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    told = model.generate(**inputs, do_sample=False, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
    shares = np.exp(told.logits[0][0].double().numpy())
    shares /= shares.sum()
    return float(shares[5] / (shares[5] + shares[6]))


def test_the_score_is_yes_of_yes_and_no_beyond_that_on_grey(whole: Path) -> None:
    found = Vlm(whole, ("cat", "dog"), question=QUESTION)(pictures())
    grey = Image.new("RGB", (16, 16), (128, 128, 128))
    expected = [
        [max(0.0, share_of_yes(whole, one, label) - share_of_yes(whole, grey, label)) for label in ("cat", "dog")]
        for one in pictures()
    ]
    assert [[one.score for one in answer or ()] for answer in found] == pytest.approx(np.array(expected), abs=1e-5)
    assert len({round(score, 3) for row in expected for score in row}) > 2  # it looks at the picture and the label


def test_the_same_picture_has_the_same_score_every_time(whole: Path) -> None:
    judge = Vlm(whole, ("cat",), question=QUESTION)
    assert judge(pictures()) == judge(pictures())


def test_a_grey_picture_shows_nothing(whole: Path) -> None:
    answer = Vlm(whole, ("cat",), question=QUESTION)([Image.new("RGB", (16, 16), (128, 128, 128))])[0]
    assert answer is not None
    assert answer[0].score == 0.0


def with_perhaps(folder: Path, target: Path, factor: float) -> Path:
    """The model, which says perhaps more loudly than yes by a factor, where it would say yes."""
    import shutil

    shutil.copytree(folder, target)
    file = target / "model.safetensors"
    weights = load_file(file)
    name = next(key for key in weights if key.endswith("lm_head.weight"))
    weights[name][7] = factor * weights[name][5]
    save_file(weights, file, {"format": "pt"})
    return target


def test_an_answer_that_is_neither_yes_nor_no_is_a_failure_and_no_clean_image(whole: Path, tmp_path: Path) -> None:
    shown = pictures(24)
    plain = [share_of_yes(whole, one, "cat") for one in shown]
    grey = share_of_yes(whole, Image.new("RGB", (16, 16), (128, 128, 128)), "cat")
    factor = 2.0 if grey < 0.5 else -2.0  # perhaps is said on the side on which grey is not
    judge = Vlm(with_perhaps(whole, tmp_path / "unsure", factor), ("cat",), question=QUESTION)
    paths = {}
    for number, one in enumerate(shown):
        one.save(tmp_path / f"{number}.png")
        paths[str(number)] = tmp_path / f"{number}.png"
    found = examine(judge, paths, name="vlm")
    expected = [(share > 0.5) == (factor > 0) for share in plain]
    assert [answer is None for answer in found.values()] == expected
    assert any(expected)


def test_a_model_that_never_answers_is_a_failed_detector(whole: Path, tmp_path: Path) -> None:
    grey = share_of_yes(whole, Image.new("RGB", (16, 16), (128, 128, 128)), "cat")
    mute = with_perhaps(whole, tmp_path / "mute", 2.0 if grey > 0.5 else -2.0)
    with pytest.raises(ScoreFailed, match="neither yes nor no"):
        Vlm(mute, ("cat",), question=QUESTION)(pictures())


def test_another_question_has_another_hash(whole: Path) -> None:
    one, other = (hashes_of(Vlm(whole, ("cat",), question=text)) for text in (QUESTION, "is there a {}"))
    assert one["question"] != other["question"]
    assert one["model.safetensors"] == other["model.safetensors"]


def test_a_question_without_a_place_for_the_label_is_refused(whole: Path) -> None:
    with pytest.raises(ScoreFailed, match="expected one"):
        Vlm(whole, ("cat",), question="what is it")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoreFailed, match="vision language model"):
        Vlm(tmp_path, ("cat",))(pictures())
