"""`llamita show` for context distillation: prompts without and with preprompts, as the model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..chat_format.encoding import check_of
from ..data.intake import Intake
from ..distillation.prompts import KINDS, DistilledPrompt, read_distilled_prompts
from ..distillation.settings import DistillationSettings
from . import drawing


def show_distillation(
    settings: DistillationSettings, data: Path, tokenizer: Any, *, context_length: int, rows: int
) -> None:
    """Prints the first `rows` prompts of each kind of answer, and a table of lengths."""
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    prompts, _ = read_distilled_prompts(
        settings, data, tokenizer, context_length=context_length, intake=intake
    )
    drawing.legend("tokens that differ from the prompt without preprompt")
    for number, prompt in enumerate(prompts[:rows], 1):
        _print_prompt(tokenizer, prompt, f"prompt {number} of {len(prompts):,}")
    drawing.heading("lengths of the prompts")
    drawing.length_table(
        [(kind, [len(prompt.ids[kind]) for prompt in prompts if kind in prompt.ids]) for kind in KINDS]
    )


def _print_prompt(tokenizer: Any, prompt: DistilledPrompt, name: str) -> None:
    labels = prompt.prompt
    drawing.heading(f"{name}: category {labels.category or 'none'}, attack {labels.attack or 'none'}")
    original = prompt.ids["original"]
    for kind, ids in prompt.ids.items():
        drawing.heading(kind, level=2)
        start, end = _equal(original, ids), _equal(original[::-1], ids[::-1])
        drawing.tokens(tokenizer, ids, [start <= index < len(ids) - end for index in range(len(ids))])


def _equal(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of tokens at the start that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
