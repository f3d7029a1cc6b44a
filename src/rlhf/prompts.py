"""Prompts of rejection sampling and PPO as token ids; over-long prompts are skipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..chat_format.encoding import encode_prompt
from ..console import say
from ..data.intake import Intake
from ..data.rows import Prompt
from ..data.sources import read_prompts
from ..errors import DataError
from .settings import RlhfSettings


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt with its token ids, from BOS to [/INST]."""

    prompt: Prompt
    ids: list[int]

    def row(self) -> dict[str, Any]:
        """As a JSONL row, in the format `prompts` of sources."""
        return self.prompt.row()


def read_pool(
    settings: RlhfSettings, root: Path, tokenizer: Any, *, context_length: int, intake: Intake
) -> list[EncodedPrompt]:
    """The prompts of `settings.prompts`, below `root`, that leave room for an answer of `max_new_tokens`.

    There is room for an EOS, too, which reward models read after a truncated answer. Longer prompts, and
    those longer than `max_prompt_length`, are skipped and counted in `intake`.

    Args:
        context_length: the smallest context of the models that answer, score or are trained, see
            `models.smallest_context`.

    Raises DataError for an invalid row, or if no prompt is left.
    """
    prompts = read_prompts(settings.prompts, root, intake, seed=settings.seed)
    encoded = [EncodedPrompt(prompt, encode_prompt(tokenizer, prompt.messages)) for prompt in prompts]
    room = context_length - settings.max_new_tokens - 1
    longest = min(room, settings.max_prompt_length or room)
    limit = "no room for an answer in the context" if longest == room else "max_prompt_length"
    pool = [prompt for prompt in encoded if len(prompt.ids) <= longest]
    if not pool:
        raise DataError(
            f"all {len(encoded)} prompts are longer than {longest} tokens ({limit}); use shorter prompts or "
            "change max_prompt_length or max_new_tokens"
        )
    if skipped := len(encoded) - len(pool):
        say(f"{skipped:,} prompts skipped: longer than {longest} tokens ({limit})")
    intake.skipped[f"prompt longer than {longest} tokens"] = skipped
    return pool
