"""Any image-text-to-text model of transformers in a local folder, asked about each label whether a picture shows it.

The answer is read from the logits of the first token that the model would write: P(yes) / (P(yes) + P(no)), less the
same on a grey picture of the same size, which is what the model says without looking. Nothing is sampled. A model whose
likeliest first token is neither yes nor no has not answered, and the picture counts as one that nobody could look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from erase.errors import ScoreFailed
from erase.evaluate.detections import Finding, Findings
from erase.evaluate.networks.loading import load_network
from erase.models.text import first_line

# Another question is another detector: it has another version.
QUESTION = (
    "Look at the picture and at nothing else. Does it clearly show {}? A vague likeness, or something that often "
    "occurs beside it, is no. Answer with one word, yes or no."
)
YES, NO = ("yes", "Yes", "YES", " yes", " Yes"), ("no", "No", "NO", " no", " No")
GREY = (128, 128, 128)


@dataclass(frozen=True)
class Vlm:
    """The probability of yes beyond that on grey, by label; None for a picture about which it does not answer.

    `labels`: what is asked for; `question`: with {} for the label, whose hash stands in a result. Raises ScoreFailed
    for a folder that holds no such model, a question without {}, and a model that does not answer on grey.
    """

    weights: Path
    labels: tuple[str, ...]
    question: str = QUESTION

    version = "yes-no-1"

    def __post_init__(self) -> None:
        if self.question.count("{}") != 1:
            raise ScoreFailed(f'the question of vlm is "{self.question[:60]}"; expected one {{}} for the label.')

    @cached_property
    def _network(self) -> Any:
        return load_network("AutoModelForImageTextToText", self.weights, what="vision language model")

    @cached_property
    def _processor(self) -> Any:
        import transformers

        try:
            return transformers.AutoProcessor.from_pretrained(self.weights, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScoreFailed(
                f"the processor of the vision language model in {self.weights} cannot be loaded: {first_line(error)}"
            ) from error

    @cached_property
    def _answers(self) -> tuple[list[int], list[int]]:
        """The first tokens of yes and of no; raises ScoreFailed where one of them begins both."""
        encode = self._processor.tokenizer.encode
        ids = [sorted({encode(word, add_special_tokens=False)[0] for word in words}) for words in (YES, NO)]
        known = [[one for one in some if one != self._processor.tokenizer.unk_token_id] for some in ids]
        if not all(known) or set(known[0]) & set(known[1]):
            raise ScoreFailed(f"the tokenizer in {self.weights} has no tokens that tell yes from no.")
        return known[0], known[1]

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings | None]:
        sizes = {picture.size for picture in pictures}
        grey = {(size, label): self._grey(size, label) for size in sizes for label in self.labels}
        found: list[Findings | None] = []
        for picture in pictures:
            answers = [(label, self._yes(picture, label), grey[picture.size, label]) for label in self.labels]
            whole = [Finding(label, max(0.0, yes - bare)) for label, yes, bare in answers if yes is not None]
            found.append(tuple(whole) if len(whole) == len(answers) else None)
        return found

    def _grey(self, size: tuple[int, int], label: str) -> float:
        answer = self._yes(Image.new("RGB", size, GREY), label)
        if answer is None:
            raise ScoreFailed(
                f"the vision language model in {self.weights} says neither yes nor no of a grey picture when it is "
                f"asked about {label}; take another model, or another question."
            )
        return answer

    @torch.inference_mode()
    def _yes(self, picture: Image.Image, label: str) -> float | None:
        """The share of yes in yes and no; None if the likeliest first token is neither."""
        logits: Tensor = self._network(**self._inputs(picture, self.question.replace("{}", label))).logits[0, -1]
        yes, no = self._answers
        if int(logits.argmax()) not in {*yes, *no}:
            return None
        both = torch.stack([logits[yes].double().logsumexp(0), logits[no].double().logsumexp(0)])
        return float(both.softmax(0)[0])

    def _inputs(self, picture: Image.Image, question: str) -> Any:
        processor = self._processor
        if getattr(processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        else:
            text = f"{getattr(processor, 'image_token', '<image>')}\n{question}"
        return processor(images=picture, text=text, return_tensors="pt")
