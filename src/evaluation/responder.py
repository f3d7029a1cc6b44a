"""A model that answers: chats in, texts out, one answer each at temperature 1 without top-p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..chat_format.encoding import chat_format, encode_questions, remove_control_strings
from ..distributed.device import device
from ..model.architecture import context_of
from ..model.checkpoint import load_causal_lm
from ..sampling.dialogues import DialogueSampler
from ..sampling.generate import GenerateSampler, sampler_for
from .settings import EvaluateSettings


@dataclass(frozen=True)
class SampledAnswer:
    """One sampled answer.

    Attributes:
        ids: its token ids, EOS included where it is finished.
        text: what they say, stripped, free of the marks of the chat format.
        finished: whether it ended by itself rather than at the limit.
    """

    ids: list[int]
    text: str
    finished: bool


class Responder:
    """Answers chats with one model.

    Args:
        sampler: holds the model's weights.
        tokenizer: the model's.
        context: the most tokens that a prompt and its answer may have together.
        max_new_tokens: the most tokens of an answer.
        seed: of every draw; an answer depends on it, its batch's name and its place in the batch alone.
    """

    def __init__(
        self,
        sampler: DialogueSampler | GenerateSampler,
        tokenizer: Any,
        context: int,
        *,
        max_new_tokens: int,
        seed: int,
    ) -> None:
        self.sampler, self.tokenizer = sampler, tokenizer
        self.context, self.max_new_tokens, self.seed = context, max_new_tokens, seed
        self._marks = chat_format(tokenizer).control_strings

    def ask(self, prompts: Sequence[Sequence[int]], name: str) -> list[SampledAnswer]:
        """One answer to each prompt (token ids, up to the last [/INST])."""
        samples = self.sampler.sample(
            prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=1.0,
            seed=f"{self.seed}/{name}",
            label=name,
        )
        return self._answers(samples.answer_ids)

    def converse(self, questions: Sequence[Sequence[Sequence[int]]], name: str) -> list[list[SampledAnswer]]:
        """Holds dialogues, the own answers in their histories: `[dialogues][turns]` questions to answers.

        A dialogue that outgrows the context has fewer answers than questions.
        """
        ids = self.sampler.converse(
            questions,
            self.max_new_tokens,
            self.context,
            temperature=1.0,
            seed=f"{self.seed}/{name}",
            label=name,
        )
        return [self._answers(turns) for turns in ids]

    def _answers(self, rows: list[list[int]]) -> list[SampledAnswer]:
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
        return [
            SampledAnswer(
                ids,
                remove_control_strings(text, self._marks).strip(),
                bool(ids) and ids[-1] in self.sampler.eos,
            )
            for ids, text in zip(rows, texts, strict=True)
        ]

    def encode_questions(self, questions: Sequence[str], system: str | None = None) -> list[list[int]]:
        """Ids of each question of a dialogue, from the EOS before it to where its answer begins."""
        return encode_questions(self.tokenizer, questions, system)

    def history(self, questions: Sequence[list[int]], answers: Sequence[SampledAnswer]) -> list[int]:
        """Ids of the turns of a dialogue; every answer ends with EOS, also one that was cut."""
        ids: list[int] = []
        for question, answer in zip(questions, answers, strict=True):
            ids += question + answer.ids + ([] if answer.finished else [self.tokenizer.eos_token_id])
        return ids

    def fits(self, prompt: Sequence[int]) -> bool:
        """Whether prompt and longest answer stay within the context."""
        return len(prompt) + self.max_new_tokens <= self.context


def load_model(folder: Path, settings: EvaluateSettings) -> Any:
    """The model of a folder on this process's device, in the precision of the settings."""
    return load_causal_lm(folder, settings.dtype).to(device()).eval()


def speaker_for(model: Any, tokenizer: Any, settings: EvaluateSettings) -> Responder:
    """Answers with a model, as the settings say."""
    return Responder(
        sampler_for(model, settings.sampling_batch_size),
        tokenizer,
        context_of(model.config),
        max_new_tokens=settings.max_new_tokens,
        seed=settings.seed,
    )
