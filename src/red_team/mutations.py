"""Attack prompts that a model rewrites from the given ones (section 4.3)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..chat_format.encoding import encode_prompt, remove_control_strings
from ..console import say
from ..data.rows import Message
from ..distributed.cached import cached_rows
from ..jsonl import Row
from ..model.checkpoint import context_length, load_tokenizer
from ..model.refusal import is_refusal
from ..sampling.engines import Samplers
from .prompts import RedTeamPrompt
from .settings import PROMPT, MutationSettings, RedTeamSettings

REASONS = ("truncated", "empty", "control_strings", "refused", "repeated", "too_long")


def mutate(
    settings: RedTeamSettings,
    attacker: Path,
    prompts: Sequence[RedTeamPrompt],
    *,
    samplers: Samplers,
    control_strings: Sequence[str],
    path: Path,
) -> tuple[list[RedTeamPrompt], dict[str, Counter[str]]]:
    """Lets the attacker rewrite each prompt in each style, and returns the usable texts as prompts.

    Args:
        control_strings: strings that no prompt may contain: those of the chat formats of all versions.
        path: file with all sampled texts, usable or not, which a resumed run reuses.

    Returns:
        The variants, and counts by attack style: `sampled`, `kept`, and a reason for each text that was
        dropped (`REASONS`; `too_long`: the instruction does not fit in the attacker's context).

    Raises DataError if the attacker can't be loaded, or a prompt contains one of its control strings.
    """
    assert settings.mutations is not None
    mutations = settings.mutations
    rows = cached_rows(
        path, lambda: _rewritten(settings, mutations, attacker, prompts=prompts, samplers=samplers)
    )
    by_id = {prompt.id: prompt for prompt in prompts}
    seen = {_normalised(prompt.request) for prompt in prompts}
    counts: dict[str, Counter[str]] = {style: Counter() for style in mutations.instructions}
    variants = []
    for row in rows:
        style, text = row["attack"], row["text"].strip().strip('"').strip()
        reason = _unusable(row, text, control_strings) or ("repeated" if _normalised(text) in seen else None)
        counts[style]["sampled"] += 1
        counts[style][reason or "kept"] += 1
        if reason is None:
            seen.add(_normalised(text))
            name = f"{style}/m{row['number']}"
            variants.append(by_id[row["origin"]].variant("mutation", style, text, name=name))
    say(f"mutations: {len(variants):,} of {len(rows):,} sampled texts are usable")
    return variants, {style: Counter(count) for style, count in counts.items()}


def _unusable(row: Row, text: str, control_strings: Sequence[str]) -> str | None:
    """The reason why a text is no prompt, or None."""
    if row["too_long"]:
        return "too_long"
    if not row["finished"]:
        return "truncated"
    if not text:
        return "empty"
    if remove_control_strings(text, control_strings) != text:
        return "control_strings"
    return "refused" if is_refusal(text) else None


def _normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _rewritten(
    settings: RedTeamSettings,
    mutations: MutationSettings,
    attacker: Path,
    *,
    prompts: Sequence[RedTeamPrompt],
    samplers: Samplers,
) -> list[Row]:
    """Samples all texts; rows {"origin", "attack", "number", "text", "finished", "too_long"}."""
    tokenizer = load_tokenizer(attacker)
    limit = context_length(attacker) - mutations.max_new_tokens
    tasks: list[tuple[RedTeamPrompt, str]] = []
    encoded: list[list[int]] = []
    rows: list[Row] = []
    for prompt in prompts:
        for style, instruction in mutations.instructions.items():
            content = instruction.replace(PROMPT, prompt.request)
            messages: list[Message] = [{"role": "user", "content": content}]
            ids = encode_prompt(tokenizer, messages)
            if len(ids) <= limit:
                tasks.append((prompt, style))
                encoded.append(ids)
            else:
                rows.append(_row(prompt, style, 0, too_long=True))
    samples = samplers.of(attacker).sample(
        encoded,
        mutations.max_new_tokens,
        mutations.per_prompt,
        temperature=mutations.temperature,
        seed=f"{settings.seed}/red_team/mutations",
        label="mutations",
    )
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in samples.answer_ids]
    for place, (index, text, finished) in enumerate(
        zip(samples.prompts, texts, samples.finished, strict=True)
    ):
        number = place % mutations.per_prompt
        rows.append(_row(*tasks[index], number, text=text, finished=finished))
    return rows


def _row(prompt: RedTeamPrompt, attack: str, number: int, **other: Any) -> Row:
    row = {"origin": prompt.id, "attack": attack, "number": number}
    return row | {"text": "", "finished": False, "too_long": False} | other
