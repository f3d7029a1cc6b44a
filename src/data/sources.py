"""The four kinds of rows that stages read, and the formats that each may come in.

A source's `path` is a file or folder below `root` (the stage's input `data`), an absolute path, or a Hub id
(`org/name`, or `org/name:config`). A broken row raises DataError with file and line; sound rows that can't be
used (an empty answer, two equal answers) are left out, counted in `.skipped` and told on the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..config import Source
from . import comparisons, dialogues
from .reading import Format, Skip, Stream, field, records, text_field, text_records
from .rows import Comparison, Dialogue, Prompt, Rows

Parse = Callable[[dict[str, Any]], Any]


def _document(row: Mapping[str, Any]) -> str:
    text = text_field(row, "text")
    if not text.strip():
        raise Skip("empty document")
    return text


def _completed_prompt(row: Mapping[str, Any]) -> str:
    prompt, answer = dialogues.prompt_and_completion(row)
    between = "" if prompt[-1:].isspace() or answer[:1].isspace() else "\n"
    return _document({"text": prompt + between + answer})


def _prompt(row: Mapping[str, Any]) -> Prompt:
    """{"messages": […, the user's], "is_safety": true or false (false if missing), "id": optional}."""
    messages = dialogues.messages_of(row, "messages", "user")
    return Prompt(messages, bool(field(row, "is_safety", bool)), field(row, "id", str))


def _prompt_of(parse: Parse, is_safety: bool, row: dict[str, Any]) -> list[Prompt | Skip]:
    """The prompts of a dialogue's last answer, or of comparisons."""
    parsed = parse(row)
    made = parsed if isinstance(parsed, list) else [parsed]
    return [
        one
        if isinstance(one, Skip)
        else Prompt(one.prompt if isinstance(one, Comparison) else one.messages[:-1], is_safety)
        for one in made
    ]


DOCUMENTS: dict[str, Format[str]] = {
    "text": Format(_document, text_records),
    "text_rows": Format(_document, partial(records, streaming=True)),
    "prompt_completion": Format(_completed_prompt, partial(records, streaming=True)),
}
DIALOGUES: dict[str, Format[Dialogue]] = {
    "messages": Format(dialogues.messages, records),
    "prompt_completion": Format(dialogues.prompt_completion, records),
    "alpaca": Format(dialogues.alpaca, records),
    "seed_tasks": Format(dialogues.seed_tasks, records),
    "sharegpt": Format(dialogues.sharegpt, records),
    "gsm8k": Format(dialogues.gsm8k, records),
    "hh": Format(comparisons.preferred, records),
}
COMPARISONS: dict[str, Format[Comparison]] = {
    "comparison": Format(comparisons.comparison, records),
    "hh": Format(comparisons.hh, records),
    "self_instruct_eval": Format(comparisons.self_instruct_eval, comparisons.self_instruct_records),
    "gsm8k_solutions": Format(comparisons.gsm8k_solutions, records),
}
PROMPTS: dict[str, Format[Prompt]] = {
    "prompts": Format(_prompt, records),
    **{
        name: Format(partial(_prompt_of, format.parse, name == "hh"), format.records)
        for name, format in {**DIALOGUES, **COMPARISONS}.items()
    },
}


def read_documents(sources: Sequence[Source], root: Path) -> Stream[str]:
    """Texts to pretrain on, one by one. Formats: text, text_rows, prompt_completion."""
    return Stream(sources, root, DOCUMENTS)


def read_dialogues(sources: Sequence[Source], root: Path) -> Rows[Dialogue]:
    """Dialogues. Formats: messages, prompt_completion, alpaca, seed_tasks, sharegpt, gsm8k, hh."""
    stream = Stream(sources, root, DIALOGUES)
    return Rows(stream, stream.skipped)


def read_comparisons(sources: Sequence[Source], root: Path) -> Rows[Comparison]:
    """Comparisons. Formats: comparison, hh, self_instruct_eval, gsm8k_solutions."""
    stream = Stream(sources, root, COMPARISONS)
    return Rows(stream, stream.skipped)


def read_prompts(sources: Sequence[Source], root: Path) -> Rows[Prompt]:
    """Prompts that differ, or have different ids; those of `hh` are safety prompts.

    Formats: prompts, or any of dialogues or comparisons.
    """
    stream = Stream(sources, root, PROMPTS)
    prompts = list(stream)
    different: dict[str, Prompt] = {}
    for prompt in prompts:
        different.setdefault(repr((prompt.id, prompt.messages)), prompt)
    repeated = Counter({"repeated prompt": len(prompts) - len(different)})
    return Rows(different.values(), stream.skipped + repeated)
