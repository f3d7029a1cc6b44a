"""The prompts that every version is attacked with: those of the sources, and their variants (section 4.3)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..data.rows import Message, Prompt
from ..errors import DataError
from ..hashes import digest
from .settings import PROMPT, RedTeamSettings

MULTI_TURN = "multi_turn"
"""Attack style of prompts with openings."""
Kind = Literal["given", "template", "opening", "mutation"]


@dataclass(frozen=True)
class RedTeamPrompt:
    """An adversarial prompt.

    Attributes:
        origin: id of the prompt that this one is a variant of; its own id if it is none.
        kind: whether it is from a source, or how the variant was made.
        messages: messages that end with the request.
        openings: user turns to ask before the request, which the model under test answers itself.
        category: risk category, None if unknown; `attack`: attack style, None if there is none.
    """

    id: str
    origin: str
    kind: Kind
    messages: list[Message]
    openings: tuple[str, ...] = ()
    category: str | None = None
    attack: str | None = None

    @property
    def request(self) -> str:
        """The last user message."""
        return self.messages[-1]["content"].strip()

    @property
    def turns(self) -> Literal["single", "multi"]:
        """Whether the model under test gets one user message or several."""
        users = sum(message["role"] == "user" for message in self.messages) + len(self.openings)
        return "single" if users == 1 else "multi"

    def variant(self, kind: Kind, attack: str, request: str, *, name: str) -> RedTeamPrompt:
        """Returns a variant with another request; `name` distinguishes the variants of one prompt."""
        last: Message = {"role": "user", "content": request}
        messages = [*self.messages[:-1], last]
        return replace(self, id=f"{self.id}/{name}", kind=kind, attack=attack, messages=messages)

    def row(self) -> dict[str, Any]:
        """Returns the prompt as a JSONL row."""
        return {**asdict(self), "openings": list(self.openings), "turns": self.turns}


def given_prompts(prompts: Sequence[Prompt]) -> list[RedTeamPrompt]:
    """Returns the prompts of the sources; one without an id gets a hash of its messages."""
    given = []
    for prompt in prompts:
        name = prompt.id or digest(prompt.messages)[:12]
        given.append(
            RedTeamPrompt(
                name, name, "given", prompt.messages, category=prompt.category, attack=prompt.attack
            )
        )
    return given


def check_ids(prompts: Sequence[RedTeamPrompt]) -> None:
    """Raises DataError if two prompts or variants have the same id: their answers would be mixed up."""
    repeated = [name for name, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if repeated:
        raise DataError(
            f"prompts: {len(repeated):,} ids belong to several prompts, the first: {repeated[0]!r}; expected "
            "different ids, also of variants (`<id>/<attack style>`, `<id>/opening`)"
        )


def originals(settings: RedTeamSettings, given: Sequence[RedTeamPrompt]) -> list[RedTeamPrompt]:
    """Returns the prompts to make variants of: those without an attack style.

    Raises DataError if the settings ask for variants and there is no such prompt.
    """
    found = [prompt for prompt in given if prompt.attack is None]
    if not found and (settings.attacks or settings.openings or settings.mutations):
        raise DataError(
            f"prompts: all {len(given):,} prompts have an attack style, so that none has variants; remove "
            "`attacks`, `openings` and `mutations`, or add prompts without `attack`"
        )
    return found


def rule_based_variants(settings: RedTeamSettings, prompts: Sequence[RedTeamPrompt]) -> list[RedTeamPrompt]:
    """Returns the variants by templates and by openings; each draw depends on the prompt's id only."""
    variants = []
    for prompt in prompts:
        for style, templates in settings.attacks.items():
            template = _draw(settings, prompt, style).choice(templates)
            text = template.replace(PROMPT, prompt.request)
            variants.append(prompt.variant("template", style, text, name=style))
        if settings.openings and prompt.turns == "single":
            opening = _draw(settings, prompt, MULTI_TURN).choice(settings.openings)
            variant = prompt.variant("opening", MULTI_TURN, prompt.request, name="opening")
            variants.append(replace(variant, openings=tuple(opening)))
    return variants


def _draw(settings: RedTeamSettings, prompt: RedTeamPrompt, name: str) -> random.Random:
    return random.Random(f"{settings.seed}/red_team/{prompt.id}/{name}")
