"""The five kinds of rows that stages read, and the formats of each kind.

A source's `path` is a file or folder below `root` (the stage's input `data`), an absolute path, or a Hub id
(`org/name`, or `org/name:config`). An `Intake` counts bad rows, valid but unusable ones (an empty answer, two
equal answers), and fields that a format does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..console import say
from ..errors import DataError
from ..settings import Source
from . import comparison_formats, dialogue_formats
from .fields import field, text_field
from .intake import Intake
from .reading import Format, Skip, check_formats, stream
from .records import records, text_records
from .rows import Comparison, Dialogue, LabelledAnswer, Prompt
from .settings import PromptSource

BOTH_KINDS = "listed as ordinary and as safety prompts: used as safety prompts"
Parse = Callable[[dict[str, Any]], Any]


def _document(row: Mapping[str, Any]) -> str:
    text = text_field(row, "text")
    if not text.strip():
        raise Skip("empty document")
    return text


def _completed_prompt(row: Mapping[str, Any]) -> str:
    prompt, answer = dialogue_formats.prompt_and_completion(row)
    separator = "" if prompt[-1:].isspace() or answer[:1].isspace() else "\n"
    return _document({"text": prompt + separator + answer})


def _prompt(row: Mapping[str, Any]) -> Prompt:
    """Converts {"messages" (the last one is the user's)}, optionally with the other fields of `Prompt`."""
    return Prompt(
        dialogue_formats.messages_of(row, "messages", "user"),
        _is_safety(row),
        field(row, "id", str),
        **{name: field(row, name, str) or None for name in PROMPT_LABELS},
    )


def _prompt_of(parse: Parse, row: dict[str, Any]) -> list[Prompt | Skip]:
    """Returns the prompt of a dialogue's last answer, or the prompts of comparisons."""
    parsed = parse(row)
    results = parsed if isinstance(parsed, list) else [parsed]
    return [
        result
        if isinstance(result, Skip)
        else Prompt(
            result.prompt if isinstance(result, Comparison) else result.messages[:-1],
            _is_safety(row),
            **{name: field(row, name, str) or None for name in PROMPT_LABELS},
        )
        for result in results
    ]


def _labelled_answer(row: Mapping[str, Any]) -> LabelledAnswer:
    """Converts {"answer", "refusal"}; `prompt` and `source` document where the answer is from."""
    for name in ("prompt", "source"):
        field(row, name, str)
    answer, refusal = text_field(row, "answer"), field(row, "refusal", bool)
    if refusal is None:
        raise DataError("field 'refusal' is missing; expected true or false")
    if not answer.strip():
        raise Skip("empty answer")
    return LabelledAnswer(answer, refusal)


def _is_safety(row: Mapping[str, Any]) -> bool:
    return bool(field(row, "is_safety", bool))


def _fields(*names: str, messages: Sequence[str] = ()) -> frozenset[str]:
    """Names of fields; `messages`: those that may contain messages, whose inner fields are added."""
    return frozenset([*names, *messages, *(f"{name}.{part}" for name in messages for part in MESSAGE)])


MESSAGE = ("role", "content")
SHAREGPT = ("conversations", "conversations.from", "conversations.value")
SEED_TASKS = ("instruction", "instances", "instances.input", "instances.output")
SOLUTIONS = [
    f"{model}{part}" for model in comparison_formats.GSM8K_MODELS for part in ("", ".is_correct", ".solution")
]
PROMPT_LABELS = ("category", "attack", "language")
EARLIER = ("system", "history")  # optional context of a prompt
COMPARED = ("prompt", "chosen", "rejected")

DOCUMENTS: dict[str, Format[str]] = {
    "text": Format(_document, text_records, _fields("text")),
    "text_rows": Format(_document, partial(records, streaming=True), _fields("text")),
    "prompt_completion": Format(
        _completed_prompt, partial(records, streaming=True), _fields("prompt", "completion")
    ),
}
DIALOGUES: dict[str, Format[Dialogue]] = {
    "messages": Format(
        dialogue_formats.messages, records, _fields("instruction", "system", messages=["messages"])
    ),
    "prompt_completion": Format(
        dialogue_formats.prompt_completion, records, _fields("prompt", "completion", *EARLIER)
    ),
    "alpaca": Format(dialogue_formats.alpaca, records, _fields("instruction", "input", "output", *EARLIER)),
    "seed_tasks": Format(dialogue_formats.seed_tasks, records, _fields(*SEED_TASKS)),
    "sharegpt": Format(dialogue_formats.sharegpt, records, _fields("system", *SHAREGPT)),
    "gsm8k": Format(dialogue_formats.gsm8k, records, _fields("question", "answer")),
    "hh": Format(comparison_formats.chosen_dialogue, records, _fields("chosen", "rejected")),
}
COMPARISONS: dict[str, Format[Comparison]] = {
    "comparison": Format(
        comparison_formats.comparison,
        records,
        _fields("rating", "chosen_safe", "rejected_safe", "category", "attack", *EARLIER, messages=COMPARED),
    ),
    "hh": Format(comparison_formats.hh, records, _fields("chosen", "rejected")),
    "self_instruct_eval": Format(
        comparison_formats.self_instruct_eval,
        comparison_formats.self_instruct_records,
        _fields("prompt", "answers"),
    ),
    "gsm8k_solutions": Format(comparison_formats.gsm8k_solutions, records, _fields("question", *SOLUTIONS)),
}
LABELLED_ANSWERS: dict[str, Format[LabelledAnswer]] = {
    "labelled_answers": Format(_labelled_answer, records, _fields("answer", "refusal", "prompt", "source")),
}
PROMPTS: dict[str, Format[Prompt]] = {
    "prompts": Format(
        _prompt, records, _fields("is_safety", "id", *PROMPT_LABELS, "system", messages=["messages"])
    ),
    **{
        name: Format(
            partial(_prompt_of, format.parse), format.records, format.fields | {"is_safety", *PROMPT_LABELS}
        )
        for name, format in {**DIALOGUES, **COMPARISONS}.items()
    },
}


def read_documents(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> Iterator[str]:
    """Yields documents. Formats: text, text_rows, prompt_completion."""
    return stream(sources, root, DOCUMENTS, kind="documents", intake=intake or Intake())


def read_dialogues(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> list[Dialogue]:
    """Reads dialogues. Formats: messages, prompt_completion, alpaca, seed_tasks, sharegpt, gsm8k, hh."""
    return list(stream(sources, root, DIALOGUES, kind="dialogues", intake=intake or Intake()))


def read_comparisons(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> list[Comparison]:
    """Reads comparisons. Formats: comparison, hh, self_instruct_eval, gsm8k_solutions."""
    return list(stream(sources, root, COMPARISONS, kind="comparisons", intake=intake or Intake()))


def read_labelled_answers(
    sources: Sequence[Source], root: Path, intake: Intake | None = None
) -> list[LabelledAnswer]:
    """Reads answers labelled as refusals or not. Format: labelled_answers."""
    rows = stream(sources, root, LABELLED_ANSWERS, kind="labelled answers", intake=intake or Intake())
    return list(rows)


def read_prompts(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> list[Prompt]:
    """Reads prompts, without duplicates of equal id. Formats: prompts, and all of dialogues and comparisons.

    `is_safety` comes from the source, or else from the row. A prompt listed as both is a safety prompt.
    """
    intake = intake or Intake()
    check_formats(sources, PROMPTS, "prompts")
    prompts = [
        prompt if is_safety is None else replace(prompt, is_safety=is_safety)
        for source in sources
        for is_safety in [source.is_safety if isinstance(source, PromptSource) else None]
        for prompt in stream([source], root, PROMPTS, kind="prompts", intake=intake)
    ]
    prompts = _resolve_safety(prompts, intake)
    different: dict[str, Prompt] = {}
    for prompt in prompts:
        different.setdefault(repr((prompt.id, prompt.messages)), prompt)
    if repeated := len(prompts) - len(different):
        intake.skipped["repeated prompt"] += repeated
        say(f"skipped {repeated:,} prompts: repeated prompt")
    return list(different.values())


def _resolve_safety(prompts: Sequence[Prompt], intake: Intake) -> list[Prompt]:
    """Returns the prompts; those listed both as ordinary and as safety prompts become safety prompts."""
    safety = {repr(prompt.messages) for prompt in prompts if prompt.is_safety}
    resolved = [
        prompt if prompt.is_safety or repr(prompt.messages) not in safety else replace(prompt, is_safety=True)
        for prompt in prompts
    ]
    if changed := sum(a is not b for a, b in zip(prompts, resolved, strict=True)):
        intake.changed[BOTH_KINDS] += changed
        say(f"{changed:,} prompts are {BOTH_KINDS}")
    return resolved
