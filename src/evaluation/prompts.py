"""The test prompts that every version answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..chat_format.encoding import encode_prompt
from ..console import say
from ..data.intake import Intake
from ..data.rows import Message
from ..data.sources import read_prompts
from ..errors import DataError
from .settings import EvaluateSettings

Kind = Literal["ordinary", "harmful", "borderline"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class EvaluationPrompt:
    """A test prompt: its id in the world's truth ("" where there is none), messages, and token ids."""

    kind: Kind
    id: str
    messages: list[Message]
    ids: list[int]


def read_evaluation_prompts(
    settings: EvaluateSettings, data: Path, tokenizer: Any, *, context: int, intake: Intake
) -> tuple[list[EvaluationPrompt], dict[str, dict[str, Any]]]:
    """Test prompts of all kinds, and by kind how many were read and how many were too long to be used.

    `skipped` counts the rows that gave no prompt, by reason.

    Raises:
        DataError: a prompt without an id where gold scorers need it, or all that `read_prompts` raises.
    """
    prompts: list[EvaluationPrompt] = []
    counts: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        before = Counter(intake.skipped)
        rows = read_prompts(getattr(settings.prompts, kind), data, intake)
        if settings.gold and any(row.id is None for row in rows):
            raise DataError(f"{kind} test prompts: a row has no id; gold scorers know prompts by their id")
        made = [
            EvaluationPrompt(kind, row.id or "", row.messages, encode_prompt(tokenizer, row.messages))
            for row in rows
        ]
        fitting = [one for one in made if len(one.ids) + settings.max_new_tokens <= context]
        counts[kind] = {
            "read": len(made),
            "too_long": len(made) - len(fitting),
            "skipped": dict(intake.skipped - before),
        }
        if left_out := counts[kind]["too_long"]:
            say(f"{kind} test prompts: {left_out:,} of {len(made):,} left out, too long for the context")
        prompts += fitting
    return prompts, counts
