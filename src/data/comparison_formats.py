"""Formats of comparisons: converts a raw row to one or several `Comparison`s, or skips it with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..settings import Source
from .dialogue_formats import (
    NOT_ALTERNATING,
    history,
    read_messages,
    usable_messages,
    user_message,
    with_input,
    with_system,
    without_calculator,
)
from .fields import field, text_field
from .file_rows import Record
from .reading import Skip, attempt
from .records import locate, records
from .rows import RATINGS, Comparison, Dialogue, Message, Rating

SELF_INSTRUCT = "self_instruct_eval"  # the only format that reads several files in parallel
# The eight models of the Self-Instruct evaluation, worst first by that paper's human ratings. They don't rank
# self-instruct and its mixture with Super-NaturalInstructions clearly: the mixture is listed just before it.
SELF_INSTRUCT_MODELS = (
    "davinci",
    "davinci-t0-ft",
    "davinci-superni-ft",
    "davinci-self-instruct-and-superni-ft",
    "davinci-self-instruct",
    "text-davinci-001",
    "text-davinci-002",
    "text-davinci-003",
)
GSM8K_MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
TURN = re.compile(r"\n\n(Human|Assistant):")


def comparison(row: Mapping[str, Any]) -> Comparison:
    """Converts {"prompt", "chosen", "rejected"}, optionally with the other fields of `Comparison`.

    The prompt is text (after `system` and `history`, if the row has them) or messages; an answer is text,
    messages that follow the prompt, or the whole dialogue including the prompt.
    """
    prompt_field = _prompt(row)
    (prompt, chosen), (rejected_prompt, rejected) = (
        _split_answer(row, name, prompt_field) for name in ("chosen", "rejected")
    )
    if prompt != rejected_prompt:
        raise Skip("different prompts")
    rating = field(row, "rating", str) or None
    if rating and rating not in RATINGS:
        raise DataError(f"field 'rating' is {rating!r}; expected one of {', '.join(RATINGS)}")
    chosen_safe, rejected_safe = field(row, "chosen_safe", bool), field(row, "rejected_safe", bool)
    return checked_comparison(
        with_system(row, prompt),
        chosen,
        rejected,
        rating=rating,
        chosen_safe=chosen_safe,
        rejected_safe=rejected_safe,
        category=field(row, "category", str) or None,
        attack=field(row, "attack", str) or None,
    )


def checked_comparison(prompt: list[Message], chosen: str, rejected: str, **labels: Any) -> Comparison:
    """Returns a comparison; `labels` are its optional fields.

    Raises Skip if the answers are equal or one is empty, DataError if roles don't alternate.
    """
    for answer in (chosen, rejected):
        *prompt, _ = usable_messages([*prompt, {"role": "assistant", "content": answer}], "assistant")
    if chosen.strip() == rejected.strip():
        raise Skip("equal answers")
    return Comparison(prompt, chosen, rejected, **labels)


def _prompt(row: Mapping[str, Any]) -> list[Message]:
    """Returns the messages of the fields `history` and `prompt`, none if both are missing or empty."""
    if isinstance(row.get("prompt"), list | tuple):
        return [*history(row), *read_messages(row, "prompt")]
    return [*history(row), *(user_message(text_field(row, "prompt")) if row.get("prompt") else ())]


def _split_answer(
    row: Mapping[str, Any], name: str, prompt_field: list[Message]
) -> tuple[list[Message], str]:
    """Splits an answer's field into (prompt, answer); `prompt_field`: messages of the field `prompt`."""
    if not isinstance(row.get(name), list | tuple):
        prompt = prompt_field if row.get("prompt") else user_message(text_field(row, "prompt"))
        return prompt, text_field(row, name)
    dialogue = read_messages(row, name)
    if not dialogue or dialogue[-1]["role"] != "assistant":
        raise DataError(f"field {name!r}: expected messages whose last one is the assistant's")
    *before, answer = dialogue
    if not prompt_field:
        return before, answer["content"]
    whole = [message["role"] for message in before if message["role"] != "system"][:1] == ["user"]
    if whole and prompt_field[-1]["role"] == "user":
        return _matching_prompt(prompt_field, before), answer["content"]
    return [*prompt_field, *before], answer["content"]


def _matching_prompt(prompt_field: list[Message], before: list[Message]) -> list[Message]:
    """Returns the messages before an answer if they match the field `prompt`, which may lack earlier turns.

    A system message that only one of them has is kept. Raises Skip if they differ.
    """
    systems = [message for message in (prompt_field[0], before[0]) if message["role"] == "system"]
    expected, found = (
        [message["content"].strip() for message in messages if message["role"] != "system"]
        for messages in (prompt_field, before)
    )
    match = expected == found or (len(expected) == 1 and expected[0] in (found[0], found[-1]))
    if not match or (len(systems) == 2 and systems[0] != systems[1]):
        raise Skip("its field 'prompt' differs from the prompt in its messages")
    return [*systems[:1], *(message for message in before if message["role"] != "system")]


def hh(row: Mapping[str, Any]) -> Comparison:
    """Converts {"chosen", "rejected"}: transcripts "\\n\\nHuman: …\\n\\nAssistant: …" with one prompt."""
    chosen, rejected = _transcript(row, "chosen"), _transcript(row, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise Skip("different prompts")
    return checked_comparison(chosen[:-1], chosen[-1]["content"], rejected[-1]["content"])


def chosen_dialogue(row: Mapping[str, Any]) -> Dialogue:
    """Returns the chosen transcript of `hh` as a demonstration of its last answer."""
    pair = hh(row)
    return Dialogue([*pair.prompt, {"role": "assistant", "content": pair.chosen}], trained="last")


def _transcript(row: Mapping[str, Any], name: str) -> list[Message]:
    head, *parts = TURN.split(text_field(row, name))
    if not parts or head.strip():
        raise DataError(f"field {name!r} is not a transcript; expected it to begin with '\\n\\nHuman:'")
    messages: list[Message] = [
        {"role": "user" if speaker == "Human" else "assistant", "content": text.strip()}
        for speaker, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    if [message["role"] for message in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise Skip(NOT_ALTERNATING)
    return messages


def self_instruct_records(source: Source, root: Path) -> Iterator[Record]:
    """Yields rows {"prompt", "answers" (worst model first)} of a folder with <model>_predictions.jsonl."""
    files = [
        records(source.model_copy(update={"path": str(path.absolute())}), root)
        for path in self_instruct_files(source, root)
    ]
    for rows in zip_longest(*files):
        if None in rows:
            missing = SELF_INSTRUCT_MODELS[rows.index(None)]
            raise DataError(
                f"{source.path}: {missing}_predictions.jsonl has fewer rows than the other files; expected "
                "one row per instruction in each file"
            )
        yield rows[0][0], _join_models(rows)


def _join_models(rows: Sequence[Record]) -> dict[str, Any] | DataError:
    """Joins one row of every model's file into one row; returns the error if one of them is bad."""
    prompts, answers = [], []
    for where, row in rows:
        try:
            if isinstance(row, DataError):
                raise row
            prompts.append(_instruction(row))
            answers.append(text_field(row, "response"))
        except DataError as error:
            return DataError(str(error) if where == rows[0][0] else f"{where}: {error}")
        if prompts[-1] != prompts[0]:
            return DataError(
                f"{where}: the instruction differs from that at {rows[0][0]}; expected the same order of "
                "instructions in each file"
            )
    return {"prompt": prompts[0], "answers": answers}


def self_instruct_files(source: Source, root: Path) -> list[Path]:
    """Returns the files of a source of format `self_instruct_eval`, worst model first."""
    folder = locate(source, root)
    if isinstance(folder, str) or not folder.is_dir():
        raise DataError(
            f"{source.path}: not a folder; expected a folder with the <model>_predictions.jsonl of each "
            f"model (format {SELF_INSTRUCT!r})"
        )
    files = [folder / f"{model}_predictions.jsonl" for model in SELF_INSTRUCT_MODELS]
    if missing := [path.name for path in files if not path.is_file()]:
        raise DataError(
            f"{source.path}: {', '.join(missing)} missing; expected the file of each of the eight models"
        )
    return files


def _instruction(row: Mapping[str, Any]) -> str:
    return with_input(text_field(row, "instruction").strip(), field(row, "input", str))


def self_instruct_eval(row: Mapping[str, Any]) -> list[Comparison | Skip]:
    """Returns all pairs of the eight models' answers to one instruction; the better model's answer is chosen.

    The rating follows from the difference between the models' ranks: 1 negligibly_better, 2 slightly_better,
    3 or 4 better, 5 or more significantly_better. The pairs of the best model come first: as a prompt, a row
    has the chosen answer of its first pair as reference answer.
    """
    prompt = user_message(row["prompt"])
    answers = row["answers"]
    return [
        attempt(checked_comparison, prompt, answers[better], answers[worse], rating=_rating(better - worse))
        for better in reversed(range(len(answers)))
        for worse in range(better)
    ]


def _rating(distance: int) -> Rating:
    return RATINGS[0] if distance >= 5 else RATINGS[1] if distance >= 3 else RATINGS[4 - distance]


def gsm8k_solutions(row: Mapping[str, Any]) -> list[Comparison | Skip]:
    """Converts {"question", "<model>": {"is_correct", "solution"}} to pairs of a correct and a wrong one."""
    prompt = user_message(text_field(row, "question"))
    correct: list[str] = []
    wrong: list[str] = []
    for model in GSM8K_MODELS:
        solution = field(row, model, dict)
        if solution is None or not isinstance(solution.get("is_correct"), bool):
            raise DataError(f"field {model!r} is missing or not graded; expected {{is_correct, solution}}")
        graded = correct if solution["is_correct"] else wrong
        graded.append(without_calculator(text_field(solution, "solution")))
    if not correct or not wrong:
        raise Skip("all solutions correct" if correct else "all solutions wrong")
    return [attempt(checked_comparison, prompt, chosen, rejected) for chosen in correct for rejected in wrong]
