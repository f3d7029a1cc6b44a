"""The four kinds of rows that stages read, and the formats that each may come in.

A source's `path` is a file or folder below `root` (the stage's input `data`), an absolute path, or a Hub id
(`org/name`, or `org/name:config`). An `Intake` counts bad rows, sound ones that can't be used (an empty
answer, two equal answers), and the fields that a format does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..console import say
from ..settings import Source
from . import comparison_formats, dialogue_formats
from .fields import field, text_field
from .intake import Intake
from .reading import Format, Skip, check_formats, stream
from .records import records, text_records
from .rows import Comparison, Dialogue, Prompt
from .settings import PromptSource

BOTH_KINDS = "listed as ordinary and as safety prompts: taken as safety prompts"
Parse = Callable[[dict[str, Any]], Any]


def _document(row: Mapping[str, Any]) -> str:
    text = text_field(row, "text")
    if not text.strip():
        raise Skip("empty document")
    return text


def _completed_prompt(row: Mapping[str, Any]) -> str:
    prompt, answer = dialogue_formats.prompt_and_completion(row)
    between = "" if prompt[-1:].isspace() or answer[:1].isspace() else "\n"
    return _document({"text": prompt + between + answer})


def _prompt(row: Mapping[str, Any]) -> Prompt:
    """{"messages": […, the user's], "is_safety": true or false (false if missing), "id": optional}."""
    return Prompt(
        dialogue_formats.messages_of(row, "messages", "user"), _is_safety(row), field(row, "id", str)
    )


def _prompt_of(parse: Parse, row: dict[str, Any]) -> list[Prompt | Skip]:
    """The prompts of a dialogue's last answer, or of comparisons."""
    parsed = parse(row)
    made = parsed if isinstance(parsed, list) else [parsed]
    return [
        one
        if isinstance(one, Skip)
        else Prompt(one.prompt if isinstance(one, Comparison) else one.messages[:-1], _is_safety(row))
        for one in made
    ]


def _is_safety(row: Mapping[str, Any]) -> bool:
    return bool(field(row, "is_safety", bool))


def _fields(*names: str, messages: Sequence[str] = ()) -> frozenset[str]:
    """Names of fields, of which some may hold messages."""
    return frozenset([*names, *messages, *(f"{name}.{part}" for name in messages for part in MESSAGE)])


MESSAGE = ("role", "content")
SHAREGPT = ("conversations", "conversations.from", "conversations.value")
SEED_TASKS = ("instruction", "instances", "instances.input", "instances.output")
SOLUTIONS = [
    f"{model}{part}" for model in comparison_formats.GSM8K_MODELS for part in ("", ".is_correct", ".solution")
]
EARLIER = ("system", "history")  # what may come before a question
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
    "hh": Format(comparison_formats.preferred, records, _fields("chosen", "rejected")),
}
COMPARISONS: dict[str, Format[Comparison]] = {
    "comparison": Format(
        comparison_formats.comparison,
        records,
        _fields("rating", "chosen_safe", "rejected_safe", *EARLIER, messages=COMPARED),
    ),
    "hh": Format(comparison_formats.hh, records, _fields("chosen", "rejected")),
    "self_instruct_eval": Format(
        comparison_formats.self_instruct_eval,
        comparison_formats.self_instruct_records,
        _fields("prompt", "answers"),
    ),
    "gsm8k_solutions": Format(comparison_formats.gsm8k_solutions, records, _fields("question", *SOLUTIONS)),
}
PROMPTS: dict[str, Format[Prompt]] = {
    "prompts": Format(_prompt, records, _fields("is_safety", "id", "system", messages=["messages"])),
    **{
        name: Format(partial(_prompt_of, format.parse), format.records, format.fields | {"is_safety"})
        for name, format in {**DIALOGUES, **COMPARISONS}.items()
    },
}


def read_documents(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> Iterator[str]:
    """Texts to pretrain on, one by one. Formats: text, text_rows, prompt_completion."""
    return stream(sources, root, DOCUMENTS, intake=intake or Intake())


def read_dialogues(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> list[Dialogue]:
    """Dialogues. Formats: messages, prompt_completion, alpaca, seed_tasks, sharegpt, gsm8k, hh."""
    return list(stream(sources, root, DIALOGUES, intake=intake or Intake()))


def read_comparisons(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> list[Comparison]:
    """Comparisons. Formats: comparison, hh, self_instruct_eval, gsm8k_solutions."""
    return list(stream(sources, root, COMPARISONS, intake=intake or Intake()))


def read_prompts(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> list[Prompt]:
    """Prompts that differ, or have different ids. Formats: prompts, or any of dialogues or comparisons.

    Whether they are safety prompts says their source, else their row. One that is listed as both is one.
    """
    intake = intake or Intake()
    check_formats(sources, PROMPTS)
    prompts = [
        prompt if is_safety is None else replace(prompt, is_safety=is_safety)
        for source in sources
        for is_safety in [source.is_safety if isinstance(source, PromptSource) else None]
        for prompt in stream([source], root, PROMPTS, intake=intake)
    ]
    prompts = _of_one_kind(prompts, intake)
    different: dict[str, Prompt] = {}
    for prompt in prompts:
        different.setdefault(repr((prompt.id, prompt.messages)), prompt)
    if repeated := len(prompts) - len(different):
        intake.skipped["repeated prompt"] += repeated
        say(f"{repeated:,} prompts left out: repeated prompt")
    return list(different.values())


def _of_one_kind(prompts: Sequence[Prompt], intake: Intake) -> list[Prompt]:
    """The same prompts; those that are listed as ordinary and as safety prompts are safety prompts."""
    safety = {repr(prompt.messages) for prompt in prompts if prompt.is_safety}
    made = [
        prompt if prompt.is_safety or repr(prompt.messages) not in safety else replace(prompt, is_safety=True)
        for prompt in prompts
    ]
    if changed := sum(a is not b for a, b in zip(prompts, made, strict=True)):
        intake.changed[BOTH_KINDS] += changed
        say(f"{changed:,} prompts are {BOTH_KINDS}")
    return made
