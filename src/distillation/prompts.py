"""Adversarial prompts with and without a safety preprompt, as token ids (section 4.2.4)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..chat_format.encoding import encode_prompt
from ..console import say
from ..data.intake import Intake
from ..data.rows import Message, Prompt
from ..data.sources import read_prompts
from ..errors import DataError
from .settings import ADJECTIVE, DistillationSettings, Position, Preprompts

Kind = Literal["original", "generic", "tailored"]
"""Kinds of answers: sampled without preprompt, with a generic one, or with an answer template appended."""
KINDS: tuple[Kind, ...] = ("original", "generic", "tailored")


@dataclass(frozen=True)
class DistilledPrompt:
    """An adversarial prompt with its preprompts.

    Attributes:
        preprompts: text of the preprompt by kind of answer; "original" has none, "tailored" is missing if the
            prompt's category has no answer template.
        ids: token ids of the prompt by kind of answer, the preprompt included, up to the first token of the
            answer.
    """

    prompt: Prompt
    preprompts: Mapping[Kind, str]
    ids: Mapping[Kind, list[int]]


def read_distilled_prompts(
    settings: DistillationSettings, root: Path, tokenizer: Any, *, context_length: int, intake: Intake
) -> tuple[list[DistilledPrompt], int]:
    """Reads the prompts and draws their preprompts; returns the adversarial prompts and the number of others.

    Prompts longer than `max_prompt_length`, and those that with one of their preprompts leave no room for an
    answer of `max_new_tokens` and an EOS, which the safety model reads after it, are skipped and counted in
    `intake`.

    Args:
        context_length: the smaller context of the chat model and the safety model.

    Raises DataError for an invalid row or preprompt, or if no prompt is left.
    """
    prompts = read_prompts(settings.prompts, root, intake, seed=settings.seed)
    adversarial = [prompt for prompt in prompts if prompt.is_safety]
    if not adversarial:
        raise DataError(
            f"prompts: none of {len(prompts):,} prompts is adversarial; expected prompts with `is_safety: "
            "true`, in their rows or at their source"
        )
    if ordinary := len(prompts) - len(adversarial):
        say(f"{ordinary:,} prompts skipped: not adversarial")
    _report_unused_templates(settings.preprompts, adversarial)
    draw = random.Random(f"{settings.full_seed}/preprompts")
    encoded = [_encode(prompt, settings.preprompts, tokenizer, draw=draw) for prompt in adversarial]
    fitting = _fitting(encoded, settings, context_length, intake=intake)
    if settings.num_prompts is not None:
        draw = random.Random(f"{settings.full_seed}/prompts")
        fitting = draw.sample(fitting, min(settings.num_prompts, len(fitting)))
    return fitting, ordinary


def _report_unused_templates(texts: Preprompts, prompts: Sequence[Prompt]) -> None:
    """Reports categories of answer templates that no prompt has, such as misspelt ones."""
    categories = {prompt.category for prompt in prompts if prompt.category}
    if unused := sorted(texts.answer_templates.keys() - categories):
        say(
            "preprompts.answer_templates: unused, since no adversarial prompt has this category: "
            f"{', '.join(unused)}; the prompts have {', '.join(sorted(categories)) or 'no categories'}"
        )


def _fitting(
    prompts: Sequence[DistilledPrompt], settings: DistillationSettings, context_length: int, *, intake: Intake
) -> list[DistilledPrompt]:
    """The prompts that are not too long, with a count of the others in `intake`."""
    room, longest = context_length - settings.max_new_tokens - 1, settings.max_prompt_length
    left = [prompt for prompt in prompts if len(prompt.ids["original"]) <= (longest or context_length)]
    fitting = [prompt for prompt in left if max(map(len, prompt.ids.values())) <= room]
    if not fitting:
        raise DataError(
            f"prompts: all {len(prompts):,} are too long: above {room} tokens with their preprompts (context "
            f"less max_new_tokens and an EOS), or above max_prompt_length {longest} without; use shorter "
            "prompts or change these settings"
        )
    for skipped, reason in (
        (len(prompts) - len(left), f"prompt longer than {longest} tokens"),
        (len(left) - len(fitting), f"prompt longer than {room} tokens with its preprompt"),
    ):
        if skipped:
            say(f"{skipped:,} prompts skipped: {reason}")
            intake.skipped[reason] = skipped
    return fitting


def with_preprompt(messages: Sequence[Message], preprompt: str, position: Position) -> list[Message]:
    """The messages with a preprompt before the text of the system message or of the last user message."""
    if position == "user":
        *before, last = messages
        return [*before, {"role": "user", "content": f"{preprompt}\n\n{last['content']}"}]
    system, rest = messages[:1], messages[1:]
    if system[0]["role"] != "system":
        return [{"role": "system", "content": preprompt}, *messages]
    return [{"role": "system", "content": f"{preprompt} {system[0]['content']}"}, *rest]


def _draw_preprompts(category: str | None, texts: Preprompts, draw: random.Random) -> dict[Kind, str]:
    """The preprompts of a prompt; the tailored one is the generic one and an answer template."""
    generic = draw.choice(texts.templates).replace(ADJECTIVE, draw.choice(texts.adjectives))
    answer_template = texts.answer_templates.get(category or "")
    tailored: dict[Kind, str] = {"tailored": f"{generic} {answer_template}"} if answer_template else {}
    return {"generic": generic, **tailored}


def _encode(prompt: Prompt, texts: Preprompts, tokenizer: Any, *, draw: random.Random) -> DistilledPrompt:
    preprompts = _draw_preprompts(prompt.category, texts, draw)
    ids: dict[Kind, list[int]] = {"original": encode_prompt(tokenizer, prompt.messages)}
    for kind, preprompt in preprompts.items():
        ids[kind] = encode_prompt(tokenizer, with_preprompt(prompt.messages, preprompt, texts.position))
    return DistilledPrompt(prompt, preprompts, ids)
