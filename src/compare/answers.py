"""The answers to compare: sampled from a model, or read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..chat_format.encoding import chat_format, check_of, encode_prompts, remove_control_strings
from ..console import say
from ..data.fields import text_field
from ..data.intake import Intake
from ..data.reading import Format, stream
from ..data.rows import Message, Prompt
from ..data.settings import PromptSource
from ..data.sources import PROMPTS, read_prompts
from ..distributed.cached import cached_rows
from ..errors import DataError
from ..hashes import digest, file_hash, input_hash
from ..hub import fetch, is_hub_id
from ..jsonl import Row
from ..model.checkpoint import context_length, load_tokenizer
from ..model.gguf import is_gguf
from ..sampling.engines import Samplers
from ..settings import Precision, Source

PARTS = "parts"  # folder of what a resumed comparison reuses


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled. `samples`: number of answers per prompt."""

    engine: str
    temperature: float
    top_p: float
    max_new_tokens: int
    samples: int
    seed: int
    dtype: Precision


class Model:
    """A model whose answers are sampled.

    Raises ConfigError or DataError if the folder or Hub id has no complete model with a chat format.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self._tokenizer: Any = load_tokenizer(folder)
        self._control_strings = chat_format(self._tokenizer).control_strings
        self.check = check_of(self._tokenizer)
        self.context = context_length(folder)

    def lengths(self, prompts: Sequence[Prompt]) -> list[int]:
        """Returns the number of tokens of each prompt."""
        return list(map(len, encode_prompts(self._tokenizer, [prompt.messages for prompt in prompts])))

    def identity(self, prompts: Sequence[Prompt], sampling: Sampling) -> str:
        """Returns a hash of all that determines the answers."""
        return digest([input_hash(self._folder), [prompt.messages for prompt in prompts], asdict(sampling)])

    def answers(
        self, prompts: Sequence[Prompt], sampling: Sampling, samplers: Samplers, *, out: Path, label: str
    ) -> list[str]:
        """Returns the answers, those to one prompt adjacent; samples them unless they are stored below `out`.

        Both models of a comparison use the same random numbers.
        """
        path = out / PARTS / f"answers-{self.identity(prompts, sampling)[:16]}.jsonl"
        rows = cached_rows(path, partial(self._sample, prompts, sampling, samplers, label=label))
        return [row["answer"] for row in rows]

    def _sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, samplers: Samplers, *, label: str
    ) -> list[Row]:
        samples = samplers.of(self._folder).sample(
            encode_prompts(self._tokenizer, [prompt.messages for prompt in prompts]),
            sampling.max_new_tokens,
            sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=f"{sampling.seed}/compare",
            label=f"{label}: answers",
        )
        texts = (self._tokenizer.decode(ids, skip_special_tokens=True) for ids in samples.answer_ids)
        return [
            {
                "messages": prompts[index].messages,
                "answer": remove_control_strings(text, self._control_strings).strip(),
                "finished": finished,
            }
            for index, text, finished in zip(samples.prompts, texts, samples.finished, strict=True)
        ]


class AnswerFile:
    """A file of answers: rows of the format `prompts`, each with a text `answer`."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self._path = name, path

    def identity(self, prompts: Sequence[Prompt], sampling: Sampling) -> str:
        """Returns a hash of all that determines the answers."""
        return digest([file_hash(self._path), [prompt.messages for prompt in prompts], sampling.samples])

    def answers(
        self, prompts: Sequence[Prompt], sampling: Sampling, samplers: Samplers, *, out: Path, label: str
    ) -> list[str]:
        """Returns the first `samples` answers to each prompt; the arguments are those of `Model.answers`.

        Raises DataError for a broken row (with file and line), or a prompt with fewer answers.
        """
        source = Source(path=str(self._path.absolute()), format="answers")
        found: dict[str, list[str]] = {}
        for row in stream([source], Path(), ANSWERS, kind="answers", intake=Intake()):
            found.setdefault(_key(row.messages), []).append(row.answer)
        by_prompt = [found.get(_key(prompt.messages), []) for prompt in prompts]
        lacking = [place for place, texts in enumerate(by_prompt) if len(texts) < sampling.samples]
        if lacking:
            number = "answer" if sampling.samples == 1 else f"{sampling.samples} answers"
            last = prompts[lacking[0]].messages[-1]["content"]
            raise DataError(
                f"{self._path}: {len(lacking):,} of {len(prompts):,} prompts have no {number} in it, the "
                f"first one: {last!r:.80}; expected rows with the messages of the prompts and `answer`"
            )
        return [text for texts in by_prompt for text in texts[: sampling.samples]]


@dataclass(frozen=True)
class _Answered:
    messages: list[Message]
    answer: str


def _answered(row: dict[str, Any]) -> _Answered:
    prompt = PROMPTS["prompts"].parse(row)
    assert isinstance(prompt, Prompt)
    return _Answered(prompt.messages, text_field(row, "answer").strip())


ANSWERS: Mapping[str, Format[_Answered]] = {
    "answers": Format(
        _answered, PROMPTS["prompts"].records, PROMPTS["prompts"].fields | {"answer", "finished"}
    )
}
Answerer = Model | AnswerFile


def find(name: str) -> Path:
    """Returns the folder or file of this name, or the local folder of a model on the Hub.

    Raises ConfigError if there is none.
    """
    path = Path(name)
    return fetch(name) if not path.exists() and is_hub_id(name) else path


def answerer(name: str) -> Answerer:
    """Returns the model or the file of answers of this name."""
    path = find(name)
    return AnswerFile(name, path) if path.is_file() and not is_gguf(path) else Model(name, path)


def read_compared_prompts(
    path: Path, harmful: Path | None, answerers: Sequence[Answerer], *, format: str, sampling: Sampling
) -> tuple[list[Prompt], dict[str, Any]]:
    """Reads the prompts that both models can answer; those in the file `harmful` are adversarial.

    Returns:
        The prompts, and the counts `read`, `too_long` (with an answer they would exceed a model's context)
        and `skipped`, other rows by reason.

    Raises:
        DataError: a row is broken or can't be written in a model's chat format, or no prompt is left.
    """
    models = [one for one in answerers if isinstance(one, Model)]

    def check(messages: Sequence[Message], last: str) -> None:
        for model in models:
            model.check(messages, last)

    intake = Intake(0, check)
    sources = [PromptSource(path=str(path.absolute()), format=format)]
    if harmful is not None:
        sources.append(PromptSource(path=str(harmful.absolute()), format=format, is_safety=True))
    prompts = read_prompts(sources, Path(), intake)
    fits = [True] * len(prompts)
    for model in models:
        room = model.context - sampling.max_new_tokens
        fits = [fit and length <= room for fit, length in zip(fits, model.lengths(prompts), strict=True)]
    fitting = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
    if not fitting:
        raise DataError(
            f"{path}: with an answer of {sampling.max_new_tokens} tokens all prompts would exceed the "
            "context of a model; give a smaller --max-new-tokens"
        )
    if len(fitting) < len(prompts):
        say(
            f"{len(prompts) - len(fitting):,} of {len(prompts):,} prompts skipped: with an answer they would "
            "exceed the context of a model"
        )
    counts = {
        "read": len(prompts),
        "too_long": len(prompts) - len(fitting),
        "skipped": dict(intake.skipped),
    }
    return fitting, counts


def _key(messages: Sequence[Message]) -> str:
    return digest([[message["role"], message["content"]] for message in messages])
