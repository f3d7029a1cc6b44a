"""The kinds of rows that stages exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict

from ..errors import DataError

Rating = Literal["significantly_better", "better", "slightly_better", "negligibly_better"]
RATINGS: tuple[Rating, ...] = ("significantly_better", "better", "slightly_better", "negligibly_better")


Context = Literal["plain", "instruction", "multi_turn", "instruction_multi_turn"]
CONTEXTS: tuple[Context, ...] = ("plain", "instruction", "multi_turn", "instruction_multi_turn")


class Message(TypedDict):
    """A message; a dialogue has an optional system message, then user and assistant alternating."""

    role: Literal["system", "user", "assistant"]
    content: str


class Turn(NamedTuple):
    """Ids from the last answer's EOS to the next answer, and those of the next answer with its EOS.

    `answer` is None if it is still to be sampled.
    """

    prompt: list[int]
    answer: list[int] | None


@dataclass(frozen=True)
class Dialogue:
    """A dialogue that ends with an answer. `trained`: whether all answers are trained, or only the last one.

    `instruction` (Ghost Attention) applies to every answer; no message contains it yet.
    """

    messages: list[Message]
    trained: Literal["all", "last"] = "all"
    instruction: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, whose last message is the user's; `chosen` is the better one.

    `category` and `attack` as in `Prompt`.
    """

    prompt: list[Message]
    chosen: str
    rejected: str
    _: KW_ONLY
    rating: Rating | None = None
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None
    category: str | None = None
    attack: str | None = None

    @property
    def context(self) -> Context:
        """The context of the prompt, see `context_of_messages`."""
        return context_of_messages(self.prompt)


class InContext:
    """Base class of prompts: what their messages are, apart from the last one."""

    messages: list[Message]

    @property
    def context(self) -> Context:
        """What precedes the last user message, see `context_of_messages`."""
        return context_of_messages(self.messages)

    @property
    def turn(self) -> int:
        """Number of user messages: 1 for a single-turn prompt."""
        return sum(message["role"] == "user" for message in self.messages)


@dataclass(frozen=True)
class Prompt(InContext):
    """Messages that end with the user's.

    Attributes:
        is_safety: whether the prompt is adversarial, so that the safety model scores its answers.
        id: id of a test prompt, for the gold scorers of a miniature world.
        category: risk category (section 4.2.1), such as "illicit"; None if unknown or harmless.
        attack: attack style (section 4.2.1), such as "psychological"; None if there is none or it is unknown.
        language: language in which the answer is expected, where an instruction names one.
        answer: reference answer, if the prompt is that of a dialogue or comparison; not part of the row.
    """

    messages: list[Message]
    is_safety: bool = False
    id: str | None = None
    _: KW_ONLY
    category: str | None = None
    attack: str | None = None
    language: str | None = None
    answer: str | None = field(default=None, compare=False)

    def row(self) -> dict[str, Any]:
        """Returns the prompt as a JSONL row in the format `prompts` of sources, without empty fields."""
        named = {"id": self.id, "category": self.category, "attack": self.attack, "language": self.language}
        known = {name: value for name, value in named.items() if value is not None}
        return {"messages": self.messages, "is_safety": self.is_safety, **known}


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer, and whether it refuses, evades or says that it cannot help (`refusal`)."""

    answer: str
    refusal: bool


def context_of_messages(messages: Sequence[Message]) -> Context:
    """Returns what precedes the last user message: nothing, a system message, earlier turns, or both."""
    instructed = messages[0]["role"] == "system"
    if sum(message["role"] == "user" for message in messages) == 1:
        return "instruction" if instructed else "plain"
    return "instruction_multi_turn" if instructed else "multi_turn"


def check_roles(messages: Sequence[Message], last: str) -> None:
    """Raises DataError unless roles alternate and the last is `last` (user or assistant)."""
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    roles = [message["role"] for message in turns]
    expected = ["user" if index % 2 == 0 else "assistant" for index in range(len(roles))]
    if roles != expected or not roles or roles[-1] != last:
        raise DataError(
            f"the roles are {', '.join(m['role'] for m in messages) or 'missing'}; expected an optional "
            f"system message, then user and assistant alternating, the last one {last}"
        )
