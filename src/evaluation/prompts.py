"""The test prompts that every version answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..chat_format.encoding import encode_prompt
from ..console import say
from ..data.intake import Intake
from ..data.rows import InContext, Message, Prompt
from ..data.settings import PromptSource
from ..data.sources import read_prompts
from ..errors import DataError
from ..miniature.gold import Gold
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
    def of(cls, kind: Kind, prompt: Prompt, ids: list[int]) -> EvaluationPrompt:
        return cls(
            kind,
            prompt.id or "",
            prompt.messages,
            ids,
            category=prompt.category,
            attack=prompt.attack,
            language=prompt.language,
        )


def read_evaluation_prompts(
    settings: EvaluateSettings, data: Path, tokenizer: Any, *, context: int, intake: Intake
) -> tuple[list[EvaluationPrompt], dict[str, dict[str, Any]]]:
    """Reads the test prompts of all kinds.

    Returns:
        The prompts, and by kind the counts `read`, `too_long` (with an answer and an EOS, which reward models
        read after it, the prompt would exceed `context`) and `skipped`, rows without a prompt by reason.

    Raises:
        DataError: a prompt has no id although `gold` is true, or as `read_fitting`.
    """
    prompts: list[EvaluationPrompt] = []
    counts: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        fitting, counts[kind] = read_fitting(
            f"{kind} test prompts",
            getattr(settings.prompts, kind),
            data,
            settings=settings,
            tokenizer=tokenizer,
            context=context,
            intake=intake,
        )
        if settings.gold and any(row.id is None for row, _ in fitting):
            raise DataError(
                f"prompts.{kind}: a row has no id, which `gold: true` needs to find the ground truth; use "
                "the test files of the miniature world, or set gold: false"
            )
        prompts += [EvaluationPrompt.of(kind, row, ids) for row, ids in fitting]
    return prompts, counts


def check_prompt_ids(prompts: Sequence[EvaluationPrompt], gold: Gold) -> None:
    """Raises DataError for a prompt that the ground truth needs to score answers and does not have."""
    for prompt in prompts:
        if prompt.kind != "harmful" and not gold.knows(prompt.id):
            raise DataError(
                f"prompts.{prompt.kind}: the ground truth (truth.json) has no prompt with the id "
                f"{prompt.id!r}; use the test files of this world, or set gold: false"
            )


def read_fitting(
    name: str,
    sources: Sequence[PromptSource],
    data: Path,
    *,
    settings: EvaluateSettings,
    tokenizer: Any,
    context: int,
    intake: Intake,
) -> tuple[list[tuple[Prompt, list[int]]], dict[str, Any]]:
    """Reads prompts that fit in the context with an answer, with their token ids.

    Args:
        name: plural noun for the prompts in messages.
        context: the smallest context of all models that answer or score.

    Returns:
        The prompts, and counts as in `read_evaluation_prompts`.

    Raises:
        DataError: all prompts are too long, or as `read_prompts`.
    """
    before = Counter(intake.skipped)
    rows = read_prompts(sources, data, intake, seed=settings.seed)
    encoded = [(row, encode_prompt(tokenizer, row.messages)) for row in rows]
    fitting = [(row, ids) for row, ids in encoded if len(ids) + settings.max_new_tokens + 1 <= context]
    too_long = len(encoded) - len(fitting)
    if encoded and not fitting:
        raise DataError(
            f"{name}: all {too_long:,} are too long: with an answer of max_new_tokens "
            f"({settings.max_new_tokens:,}) and an EOS they would exceed {context:,} tokens, the smallest "
            "context of the models; use shorter prompts or lower max_new_tokens"
        )
    if too_long:
        say(
            f"{name}: {too_long:,} of {len(encoded):,} skipped: with an answer and an EOS they would "
            f"exceed {context:,} tokens, the smallest context of the models"
        )
    counts = {"read": len(encoded), "too_long": too_long, "skipped": dict(intake.skipped - before)}
    return fitting, counts
