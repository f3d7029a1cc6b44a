"""Formats of comparisons: a raw row becomes one or several `Comparison`s, or is skipped with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..settings import Source
from .dialogue_formats import (
    history,
    read_messages,
    usable,
    user,
    with_input,
    with_system,
    without_calculator,
)
from .fields import field, text_field
from .file_rows import Record
from .reading import Skip, attempt
from .records import locate, records
from .rows import RATINGS, Comparison, Dialogue, Message, Rating

SELF_INSTRUCT = "self_instruct_eval"  # the one format that takes several files side by side
# The eight models of the Self-Instruct evaluation, worst first, as people rated them in that paper. It gives
# the mixture with Super-NaturalInstructions no clear place beside self-instruct: it stands just below.
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
    """{"prompt", "chosen", "rejected"} and, where known, {"rating", "chosen_safe", "rejected_safe"}.

    The prompt is text (behind `system` and `history`, where the row has them) or messages; an answer is text,
    messages that follow the prompt, or the whole dialogue, the prompt included.
    """
    given = _prompt(row)
    (prompt, chosen), (other, rejected) = (_parted(row, name, given) for name in ("chosen", "rejected"))
    if prompt != other:
        raise Skip("two prompts")
    rating = field(row, "rating", str) or None
    if rating and rating not in RATINGS:
        raise DataError(f"rating {rating!r}; expected one of {', '.join(RATINGS)}")
    chosen_safe, rejected_safe = field(row, "chosen_safe", bool), field(row, "rejected_safe", bool)
    return compared(
        with_system(row, prompt),
        chosen,
        rejected,
        rating=rating,
        chosen_safe=chosen_safe,
        rejected_safe=rejected_safe,
    )


def compared(prompt: list[Message], chosen: str, rejected: str, **told: Any) -> Comparison:
    """A comparison of answers that differ, `told`: its other fields.

    Raises Skip where they don't differ or one says nothing.
    """
    for answer in (chosen, rejected):
        *prompt, _ = usable([*prompt, {"role": "assistant", "content": answer}], "assistant")
    if chosen.strip() == rejected.strip():
        raise Skip("equal answers")
    return Comparison(prompt, chosen, rejected, **told)


def _prompt(row: Mapping[str, Any]) -> list[Message]:
    """What the fields `history` and `prompt` say; no messages where they are missing or empty."""
    if isinstance(row.get("prompt"), list | tuple):
        return [*history(row), *read_messages(row, "prompt")]
    return [*history(row), *(user(text_field(row, "prompt")) if row.get("prompt") else ())]


def _parted(row: Mapping[str, Any], name: str, given: list[Message]) -> tuple[list[Message], str]:
    """(prompt, answer) of a field with an answer, where `given` is what the field `prompt` says."""
    if not isinstance(row.get(name), list | tuple):
        prompt = given if row.get("prompt") else user(text_field(row, "prompt"))
        return prompt, text_field(row, name)
    said = read_messages(row, name)
    if not said or said[-1]["role"] != "assistant":
        raise DataError(f"field {name!r} holds no messages that end with an answer")
    *before, answer = said
    if not given:
        return before, answer["content"]
    whole = [message["role"] for message in before if message["role"] != "system"][:1] == ["user"]
    if whole and given[-1]["role"] == "user":
        return _agreed(given, before), answer["content"]
    return [*given, *before], answer["content"]


def _agreed(given: list[Message], before: list[Message]) -> list[Message]:
    """The messages before an answer, if the field `prompt` says the same; it may lack what came earlier.

    A system message that one of them has alone is kept. Raises Skip where they differ.
    """
    systems = [message for message in (given[0], before[0]) if message["role"] == "system"]
    stated, said = (
        [message["content"].strip() for message in part if message["role"] != "system"]
        for part in (given, before)
    )
    alike = stated == said or (len(stated) == 1 and stated[0] in (said[0], said[-1]))
    if not alike or (len(systems) == 2 and systems[0] != systems[1]):
        raise Skip("its prompt is not that of its messages")
    return [*systems[:1], *(message for message in before if message["role"] != "system")]


def hh(row: Mapping[str, Any]) -> Comparison:
    """{"chosen", "rejected"}: transcripts "\\n\\nHuman: …\\n\\nAssistant: …" that differ at their end."""
    chosen, rejected = _transcript(row, "chosen"), _transcript(row, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise Skip("two prompts")
    return compared(chosen[:-1], chosen[-1]["content"], rejected[-1]["content"])


def preferred(row: Mapping[str, Any]) -> Dialogue:
    """The better transcript of `hh` as a demonstration of its last answer."""
    one = hh(row)
    return Dialogue([*one.prompt, {"role": "assistant", "content": one.chosen}], trained="last")


def _transcript(row: Mapping[str, Any], name: str) -> list[Message]:
    head, *parts = TURN.split(text_field(row, name))
    if not parts or head.strip():
        raise DataError(f"field {name!r} is no transcript; expected it to begin with '\\n\\nHuman:'")
    said: list[Message] = [
        {"role": "user" if speaker == "Human" else "assistant", "content": text.strip()}
        for speaker, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    if [message["role"] for message in said] != ["user", "assistant"] * (len(said) // 2):
        raise Skip("doesn't alternate from a question to an answer")
    return said


def self_instruct_records(source: Source, root: Path) -> Iterator[Record]:
    """Rows {"prompt", "answers": [worst model's, …, best's]} of a folder of <model>_predictions.jsonl."""
    files = [
        records(source.model_copy(update={"path": str(path.absolute())}), root)
        for path in self_instruct_files(source, root)
    ]
    for rows in zip_longest(*files):
        if None in rows:
            missing = SELF_INSTRUCT_MODELS[rows.index(None)]
            raise DataError(f"{source.path}: {missing}_predictions.jsonl has fewer rows than the others")
        yield rows[0][0], _answers_of_all(rows)


def _answers_of_all(rows: Sequence[Record]) -> dict[str, Any] | DataError:
    """One row of every model's file as a row of ours, or why there is none."""
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
            return DataError(f"{where}: another instruction than at {rows[0][0]}; expected the same order")
    return {"prompt": prompts[0], "answers": answers}


def self_instruct_files(source: Source, root: Path) -> list[Path]:
    """The files of a source of format `self_instruct_eval`, worst model first."""
    folder = locate(source, root)
    if isinstance(folder, str) or not folder.is_dir():
        raise DataError(
            f"{source.path}: format {SELF_INSTRUCT!r} reads a folder of <model>_predictions.jsonl"
        )
    files = [folder / f"{model}_predictions.jsonl" for model in SELF_INSTRUCT_MODELS]
    if missing := [path.name for path in files if not path.is_file()]:
        raise DataError(
            f"{source.path}: no {', '.join(missing)}; expected a file of each of the eight models"
        )
    return files


def _instruction(row: Mapping[str, Any]) -> str:
    return with_input(text_field(row, "instruction").strip(), field(row, "input", str))


def self_instruct_eval(row: Mapping[str, Any]) -> list[Comparison | Skip]:
    """All pairs of the eight models' answers to one instruction, the better model's chosen.

    The rating is the distance of the two models in their order: 1 negligibly, 2 slightly, 3 or 4 better, from
    5 on significantly.
    """
    prompt = user(row["prompt"])
    answers = row["answers"]
    return [
        attempt(compared, prompt, answers[better], answers[worse], rating=_rating(better - worse))
        for better in range(len(answers))
        for worse in range(better)
    ]


def _rating(distance: int) -> Rating:
    return RATINGS[0] if distance >= 5 else RATINGS[1] if distance >= 3 else RATINGS[4 - distance]


def gsm8k_solutions(row: Mapping[str, Any]) -> list[Comparison | Skip]:
    """{"question", "<model>": {"is_correct", "solution"}} of four models: each right one over each wrong."""
    prompt = user(text_field(row, "question"))
    right: list[str] = []
    wrong: list[str] = []
    for model in GSM8K_MODELS:
        solution = field(row, model, dict)
        if solution is None or not isinstance(solution.get("is_correct"), bool):
            raise DataError(f"field {model!r} is missing or not graded; expected {{is_correct, solution}}")
        graded = right if solution["is_correct"] else wrong
        graded.append(without_calculator(text_field(solution, "solution")))
    if not right or not wrong:
        raise Skip("all solutions right" if right else "all solutions wrong")
    return [attempt(compared, prompt, chosen, rejected) for chosen in right for rejected in wrong]
