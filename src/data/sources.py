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
from .prompt_contexts import with_earlier_turns, with_instruction
from .reading import Format, Skip, check_formats, stream
from .records import records, text_records
from .rows import Comparison, Dialogue, LabelledAnswer, Prompt
from .settings import PromptSource

BOTH_KINDS = "listed as ordinary and as safety prompts: used as safety prompts"
INSTRUCTED = "an instruction was added as system message"
LATER = "earlier turns were added"
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
    """Converts {"messages" (the last one is the user's)}, or {"prompt"} with optional `system` and `history`.

    The other fields of `Prompt` are optional.
    """
    return Prompt(
        dialogue_formats.prompt_messages(row),
        _is_safety(row),
        field(row, "id", str),
        **{name: field(row, name, str) or None for name in PROMPT_LABELS},
    )


def _prompt_of(parse: Parse, row: dict[str, Any]) -> list[Prompt | Skip]:
    """Returns the prompt of a dialogue's last answer, or the prompts of comparisons."""
    parsed = parse(row)
    results = parsed if isinstance(parsed, list) else [parsed]
    return [result if isinstance(result, Skip) else _prompt_before(result, row) for result in results]


def _prompt_before(result: Comparison | Dialogue, row: Mapping[str, Any]) -> Prompt:
    if isinstance(result, Comparison):
        messages, answer = result.prompt, result.chosen
    else:
        messages, answer = result.messages[:-1], result.messages[-1]["content"]
    labels = {name: field(row, name, str) or None for name in PROMPT_LABELS}
    return Prompt(messages, _is_safety(row), answer=answer, **labels)


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
        dialogue_formats.messages,
        records,
        # the labels of the prompt are for readers of the file: fine-tuning treats all dialogues alike
        _fields("instruction", "system", "is_safety", *PROMPT_LABELS, messages=["messages"]),
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
        _prompt,
        records,
        _fields("is_safety", "id", "prompt", *PROMPT_LABELS, *EARLIER, messages=["messages"]),
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


def stream_dialogues(
    sources: Sequence[Source], root: Path, intake: Intake | None = None
) -> Iterator[Dialogue]:
    """Yields dialogues. Formats: messages, prompt_completion, alpaca, seed_tasks, sharegpt, gsm8k, hh."""
    return stream(sources, root, DIALOGUES, kind="dialogues", intake=intake or Intake())


def read_dialogues(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> list[Dialogue]:
    """`stream_dialogues` as a list."""
    return list(stream_dialogues(sources, root, intake))


def stream_comparisons(
    sources: Sequence[Source], root: Path, intake: Intake | None = None
) -> Iterator[Comparison]:
    """Yields comparisons. Formats: comparison, hh, self_instruct_eval, gsm8k_solutions."""
    return stream(sources, root, COMPARISONS, kind="comparisons", intake=intake or Intake())


def read_labelled_answers(
    sources: Sequence[Source], root: Path, intake: Intake | None = None
) -> list[LabelledAnswer]:
    """Reads answers labelled as refusals or not. Format: labelled_answers."""
    return list(stream(sources, root, LABELLED_ANSWERS, kind="labelled answers", intake=intake or Intake()))


def read_prompts(
    sources: Sequence[Source], root: Path, intake: Intake | None = None, *, seed: int = 0
) -> list[Prompt]:
    """Reads prompts, without duplicates of equal id. Formats: prompts, and all of dialogues and comparisons.

    `is_safety` comes from the source, or else from the row. A prompt listed as both is a safety prompt.
    `seed` is that of the instructions and earlier turns that a `PromptSource` may add.
    """
    intake = intake or Intake()
    check_formats(sources, PROMPTS, "prompts")
    prompts: list[Prompt] = []
    origins: list[int] = []
    for number, source in enumerate(sources):
        is_safety = source.is_safety if isinstance(source, PromptSource) else None
        for prompt in stream([source], root, PROMPTS, kind="prompts", intake=intake):
            prompts.append(prompt if is_safety is None else replace(prompt, is_safety=is_safety))
            origins.append(number)
    different: dict[str, tuple[Prompt, int]] = {}
    for prompt, number in zip(_resolve_safety(prompts, intake), origins, strict=True):
        different.setdefault(repr((prompt.id, prompt.messages)), (prompt, number))
    if repeated := len(prompts) - len(different):
        intake.skipped["repeated prompt"] += repeated
        say(f"skipped {repeated:,} prompts: repeated prompt")
    read: list[Prompt] = []
    for place, source in enumerate(sources):
        own = [prompt for prompt, number in different.values() if number == place]
        read += _in_contexts(own, source, seed, intake=intake) if isinstance(source, PromptSource) else own
    return read


def _in_contexts(prompts: list[Prompt], source: PromptSource, seed: int, *, intake: Intake) -> list[Prompt]:
    """Returns the prompts of a source, with the earlier turns and system messages that it adds."""
    answered = [prompt for prompt in prompts if prompt.context == "plain" and prompt.answer]
    if source.multi_turn_share and not answered:
        raise DataError(
            f"{source.path}: multi_turn_share: there are no reference answers, which earlier turns need; use "
            "a format of dialogues or comparisons"
        )
    later = [with_earlier_turns(prompt, answered, source.multi_turn_share, seed=seed) for prompt in prompts]
    instructed = [with_instruction(prompt, source.instruction_share, seed=seed) for prompt in later]
    for change, before, after in ((LATER, prompts, later), (INSTRUCTED, later, instructed)):
        if changed := sum(a is not b for a, b in zip(before, after, strict=True)):
            intake.changed[change] += changed
            say(f"{source.path}: {changed:,} prompts: {change}")
    return instructed


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
