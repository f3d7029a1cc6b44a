"""Stubs of a model: a word tokenizer, and a sampler that answers with a given function; tiny models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llamita.chat_format.llama2 import CHAT_TEMPLATE
from llamita.evaluation.responder import Responder
from llamita.sampling.interface import Samples

from ..helpers.tiny_evaluation import make_inputs

BOS, EOS = 1, 2


class WordTokenizer:
    """Assigns ids to words in order of appearance; 0 to 2 are pad, BOS and EOS."""

    bos_token_id, eos_token_id = BOS, EOS
    all_special_tokens = ("<unk>", "<s>", "</s>")
    chat_template = CHAT_TEMPLATE

    def __init__(self) -> None:
        self.words: list[str] = ["<unk>", "<s>", "</s>"]

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, list]:
        assert not add_special_tokens
        return {
            "input_ids": self.encode(text) if isinstance(text, str) else [self.encode(one) for one in text]
        }

    def encode(self, text: str) -> list[int]:
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return [self.words.index(word) for word in text.split()]

    def tokenize(self, text: str, add_special_tokens: bool = True) -> list[str]:
        return [f"▁{word}" for word in text.split()]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(self.words[one] for one in ids if one > EOS or not skip_special_tokens)

    def batch_decode(self, rows: Sequence[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        return [self.decode(row, skip_special_tokens) for row in rows]


class StubSampler:
    """Answers each prompt (as text) with a function, and records prompts and seeds."""

    eos = (EOS,)

    def __init__(self, tokenizer: WordTokenizer, answer: Callable[[str], str]) -> None:
        self.tokenizer, self.answer = tokenizer, answer
        self.batches: list[list[str]] = []
        self.seeds: list[str] = []

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        num_generations: int = 1,
        *,
        temperature: float,
        top_p: float = 1.0,
        seed: str,
        label: str | None = None,
    ) -> Samples:
        assert (num_generations, temperature, top_p) == (1, 1.0, 1.0)
        texts = [self.tokenizer.decode(prompt, skip_special_tokens=False) for prompt in prompts]
        self.batches.append(texts)
        self.seeds.append(seed)
        ids = [[*self.tokenizer.encode(self.answer(text)), EOS] for text in texts]
        assert all(len(row) <= max_new_tokens for row in ids)
        return Samples(list(range(len(ids))), ids, [[0.0] * len(row) for row in ids], [True] * len(ids))

    def sample_dialogues(
        self,
        questions: Sequence[Sequence[list[int]]],
        max_new_tokens: int,
        context: int,
        temperature: float,
        seed: str,
        label: str,
    ) -> list[list[list[int]]]:
        """The reference implementation: each prompt is the whole history."""
        dialogues: list[list[list[int]]] = []
        for turns in questions:
            history: list[int] = []
            dialogues.append([])
            for question in turns:
                history = history + question
                if len(history) + max_new_tokens > context:
                    break
                answer = self.sample(
                    [history], max_new_tokens, temperature=temperature, seed=seed
                ).answer_ids[0]
                dialogues[-1].append(answer)
                history = history + answer
        return dialogues


@pytest.fixture
def make_responder() -> Callable[..., Responder]:
    def make(answer: Callable[[str], str], context: int = 10_000) -> Responder:
        tokenizer = WordTokenizer()
        sampler = StubSampler(tokenizer, answer)
        return Responder(sampler, tokenizer, context, max_new_tokens=8, seed=0)

    return make


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("run"), tokenizer)
