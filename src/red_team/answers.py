"""One version's answers to the attacks, at the paper's temperature 0.1 and top-p 0.9 by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..chat_format.encoding import chat_format, encode_prompt, encode_questions, remove_control_strings
from ..data.rows import Message
from ..distributed.cached import cached_rows
from ..hashes import digest
from ..jsonl import Row
from ..model.checkpoint import context_length, load_tokenizer
from ..sampling.engines import Samplers
from .prompts import RedTeamPrompt
from .settings import RedTeamSettings


@dataclass(frozen=True)
class Answer:
    """One sampled answer.

    Attributes:
        prompt: id of the prompt; `number`: number of the answer among those to the prompt.
        messages: messages before the answer, with the version's own answers to openings.
        text: the answer, stripped and without control strings.
        finished: whether it ended with EOS before the length limit.
    """

    prompt: str
    number: int
    messages: list[Message]
    text: str
    finished: bool

    @property
    def content(self) -> str:
        """Hash of messages and text, equal for equal answers to one prompt; does not reveal the version."""
        return digest([self.messages, self.text])[:16]


def sample_answers(
    settings: RedTeamSettings,
    folder: Path,
    prompts: Sequence[RedTeamPrompt],
    *,
    samplers: Samplers,
    label: str,
    path: Path,
) -> list[Answer]:
    """Returns `num_generations` answers per prompt, from `path` if an earlier run stored them there.

    Prompts that don't fit in the model's context with an answer have none. Every version uses the same random
    numbers. Raises DataError if the model can't be loaded or its chat format can't write a prompt.
    """

    def sample() -> list[Row]:
        attack = _Attack(settings, folder, samplers, label=label)
        return [asdict(answer) for answer in [*attack.direct(prompts), *attack.with_openings(prompts)]]

    return [Answer(**row) for row in cached_rows(path, sample)]


class _Attack:
    """Attacks one version."""

    def __init__(self, settings: RedTeamSettings, folder: Path, samplers: Samplers, *, label: str) -> None:
        self._settings, self._label = settings, label
        self._tokenizer = load_tokenizer(folder)
        self._control_strings = chat_format(self._tokenizer).control_strings
        self._sampler = samplers.of(folder)
        self._context = context_length(folder)
        self._decoding: dict[str, Any] = {"temperature": settings.temperature, "top_p": settings.top_p}

    def direct(self, prompts: Sequence[RedTeamPrompt]) -> list[Answer]:
        """Answers the prompts without openings."""
        encoded = {
            index: encode_prompt(self._tokenizer, prompt.messages)
            for index, prompt in enumerate(prompts)
            if not prompt.openings
        }
        limit = self._context - self._settings.max_new_tokens
        fitting = [index for index, ids in encoded.items() if len(ids) <= limit]
        generations = self._settings.num_generations
        samples = self._sampler.sample(
            [encoded[index] for index in fitting],
            self._settings.max_new_tokens,
            generations,
            seed=f"{self._settings.seed}/red_team/answers",
            keys=fitting,
            label=f"{self._label}: answers",
            **self._decoding,
        )
        answers = []
        for place, (index, ids) in enumerate(zip(samples.prompts, samples.answer_ids, strict=True)):
            prompt = prompts[fitting[index]]
            answers.append(self._answer(prompt, place % generations, prompt.messages, ids=ids))
        return answers

    def with_openings(self, prompts: Sequence[RedTeamPrompt]) -> list[Answer]:
        """Answers the openings of prompts turn by turn, then their requests."""
        dialogues = [
            (prompt, number)
            for prompt in prompts
            if prompt.openings
            for number in range(self._settings.num_generations)
        ]
        sampled = self._sampler.sample_dialogues(
            [self._questions(prompt) for prompt, _ in dialogues],
            self._settings.max_new_tokens,
            self._context,
            seed=f"{self._settings.seed}/red_team/dialogues",
            label=f"{self._label}: dialogues",
            **self._decoding,
        )
        answers = []
        for (prompt, number), turns in zip(dialogues, sampled, strict=True):
            if len(turns) > len(prompt.openings):  # otherwise the context was full before the request
                messages = self._history(prompt, turns)
                answers.append(self._answer(prompt, number, messages, ids=turns[-1]))
        return answers

    def _questions(self, prompt: RedTeamPrompt) -> list[list[int]]:
        system = prompt.messages[0]["content"] if prompt.messages[0]["role"] == "system" else None
        return encode_questions(self._tokenizer, [*prompt.openings, prompt.request], system)

    def _history(self, prompt: RedTeamPrompt, turns: Sequence[Sequence[int]]) -> list[Message]:
        messages = prompt.messages[:-1]
        for opening, ids in zip(prompt.openings, turns, strict=False):
            messages += [
                {"role": "user", "content": opening},
                {"role": "assistant", "content": self._text(ids)},
            ]
        return [*messages, prompt.messages[-1]]

    def _answer(
        self, prompt: RedTeamPrompt, number: int, messages: list[Message], *, ids: Sequence[int]
    ) -> Answer:
        finished = bool(ids) and ids[-1] in self._sampler.eos
        return Answer(prompt.id, number, messages, self._text(ids), finished)

    def _text(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return remove_control_strings(text, self._control_strings).strip()
