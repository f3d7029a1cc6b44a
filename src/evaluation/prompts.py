"""The test prompts that every version answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..chat_format.encoding import encode_prompt
from ..console import say
from ..data.intake import Intake
from ..data.rows import InContext, Message, Prompt
from ..data.sources import read_prompts
from ..errors import DataError
from .settings import EvaluateSettings

Kind = Literal["ordinary", "harmful", "borderline"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class EvaluationPrompt(InContext):
    """A test prompt.

    Attributes:
        id: id in the ground truth, "" if there is none.
        ids: token ids up to the last [/INST].
        category, attack, language: as in `Prompt`.
    """

    kind: Kind
    id: str
    messages: list[Message]
    ids: list[int]
    _: KW_ONLY
    category: str | None = None
    attack: str | None = None
    language: str | None = None

    @classmethod
    def of(cls, kind: Kind, prompt: Prompt, tokenizer: Any) -> EvaluationPrompt:
        return cls(
            kind,
            prompt.id or "",
            prompt.messages,
            encode_prompt(tokenizer, prompt.messages),
            category=prompt.category,
            attack=prompt.attack,
            language=prompt.language,
        )


def read_evaluation_prompts(
    settings: EvaluateSettings, data: Path, tokenizer: Any, *, context: int, intake: Intake
) -> tuple[list[EvaluationPrompt], dict[str, dict[str, Any]]]:
    """Reads the test prompts of all kinds.

    Returns:
        The prompts, and by kind the counts `read`, `too_long` (prompt and answer would exceed `context`) and
        `skipped`, rows without a prompt by reason.

    Raises:
        DataError: a prompt has no id although `gold` is true, or as `read_prompts`.
    """
    prompts: list[EvaluationPrompt] = []
    counts: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        before = Counter(intake.skipped)
        rows = read_prompts(getattr(settings.prompts, kind), data, intake, seed=settings.seed)
        if settings.gold and any(row.id is None for row in rows):
            raise DataError(
                f"prompts.{kind}: a row has no id, which `gold: true` needs to find the ground truth; use "
                "the test files of the miniature world, or set gold: false"
            )
        encoded = [EvaluationPrompt.of(kind, row, tokenizer) for row in rows]
        fitting = [prompt for prompt in encoded if len(prompt.ids) + settings.max_new_tokens <= context]
        counts[kind] = {
            "read": len(encoded),
            "too_long": len(encoded) - len(fitting),
            "skipped": dict(intake.skipped - before),
        }
        if too_long := counts[kind]["too_long"]:
            say(
                f"{kind} test prompts: {too_long:,} of {len(encoded):,} skipped: with an answer they "
                f"would exceed the context of {context:,} tokens"
            )
        prompts += fitting
    return prompts, counts
