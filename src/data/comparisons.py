"""Formats of comparisons: a raw row becomes one or several `Comparison`s, or is skipped with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config import Source
from ..errors import DataError
from .dialogues import messages_of, usable, with_input, without_calculator
from .files import Record
from .reading import Skip, attempt, field, locate, records, sound, text_field
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

    The prompt is text or messages; an answer is text, or messages that end with it (as many Hub sets have
    it; if they begin with a user's they bring the prompt along, as in sets that have no prompt field).
    """
    chosen_prompt, chosen = _answer(row, "chosen")
    rejected_prompt, rejected = _answer(row, "rejected")
    prompt = chosen_prompt or _prompt(row)
    if (rejected_prompt or prompt) != prompt:
        raise Skip("two prompts")
    rating = field(row, "rating", str)
    if rating is not None and rating not in RATINGS:
        raise DataError(f"rating {rating!r}; expected one of {', '.join(RATINGS)}")
    chosen_safe, rejected_safe = field(row, "chosen_safe", bool), field(row, "rejected_safe", bool)
    return compared(prompt, chosen, rejected, rating, chosen_safe, rejected_safe)


def compared(prompt: list[Message], chosen: str, rejected: str, *rest: Any) -> Comparison:
    """A comparison of answers that differ. Raises Skip where they don't or one says nothing."""
    for answer in (chosen, rejected):
        usable([*prompt, {"role": "assistant", "content": answer}], "assistant")
    if chosen.strip() == rejected.strip():
        raise Skip("equal answers")
    return Comparison(prompt, chosen, rejected, *rest)


def _prompt(row: Mapping[str, Any]) -> list[Message]:
    if isinstance(row.get("prompt"), list | tuple):
        return messages_of(row, "prompt", "user")
    return [{"role": "user", "content": text_field(row, "prompt")}]


def _answer(row: Mapping[str, Any], name: str) -> tuple[list[Message], str]:
    """(messages before the answer, the answer) of a field that holds text or messages."""
    value = row.get(name)
    if not isinstance(value, list | tuple):
        return [], text_field(row, name)
    if len(value) == 1 and isinstance(value[0], dict) and value[0].get("role") == "assistant":
        return [], text_field(value[0], "content")
    said = messages_of(row, name, "assistant")
    return said[:-1], said[-1]["content"]


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
        sound(records(source.model_copy(update={"path": str(path.absolute())}), root))
        for path in self_instruct_files(source, root)
    ]
    for rows in zip(*files, strict=True):
        prompts = [_instruction(row) for _, row in rows]
        for (where, _), prompt in zip(rows, prompts, strict=True):
            if prompt != prompts[0]:
                raise DataError(f"{where}: another instruction than at {rows[0][0]}; expected the same order")
        yield rows[0][0], {"prompt": prompts[0], "answers": [text_field(row, "response") for _, row in rows]}


def self_instruct_files(source: Source, root: Path) -> list[Path]:
    """The files of a source of format `self_instruct_eval`, worst model first."""
    folder = locate(source, root)
    if isinstance(folder, str) or not folder.is_dir():
        raise DataError(
            f"{source.path}: format {SELF_INSTRUCT!r} reads a folder of <model>_predictions.jsonl"
        )
    return [folder / f"{model}_predictions.jsonl" for model in SELF_INSTRUCT_MODELS]


def _instruction(row: Mapping[str, Any]) -> str:
    return with_input(text_field(row, "instruction").strip(), field(row, "input", str))


def self_instruct_eval(row: Mapping[str, Any]) -> list[Comparison | Skip]:
    """All pairs of the eight models' answers to one instruction, the better model's chosen.

    The rating is the distance of the two models in their order: 1 negligibly, 2 slightly, 3 or 4 better, from
    5 on significantly.
    """
    prompt: list[Message] = [{"role": "user", "content": row["prompt"]}]
    answers = row["answers"]
    return [
        attempt(compared, prompt, answers[better], answers[worse], _rating(better - worse))
        for better in range(len(answers))
        for worse in range(better)
    ]


def _rating(distance: int) -> Rating:
    return RATINGS[0] if distance >= 5 else RATINGS[1] if distance >= 3 else RATINGS[4 - distance]


def gsm8k_solutions(row: Mapping[str, Any]) -> list[Comparison | Skip]:
    """{"question", "<model>": {"is_correct", "solution"}} of four models: each right one over each wrong."""
    prompt: list[Message] = [{"role": "user", "content": text_field(row, "question")}]
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
