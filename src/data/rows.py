"""The rows that stages pass around."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, NamedTuple, TypedDict, TypeVar

from ..errors import DataError

T = TypeVar("T")

Rating = Literal["significantly_better", "better", "slightly_better", "negligibly_better"]
RATINGS: tuple[Rating, ...] = ("significantly_better", "better", "slightly_better", "negligibly_better")


class Message(TypedDict):
    """One message of a dialogue; an optional system message comes first, then user and assistant in turn."""

    role: Literal["system", "user", "assistant"]
    content: str


class Turn(NamedTuple):
    """Ids from the last answer's EOS to the next answer, and that answer with its EOS, None if missing."""

    prompt: list[int]
    answer: list[int] | None


@dataclass(frozen=True)
class Dialogue:
    """A dialogue that ends with an answer. `trained`: which answers are learned, all or the last only.

    `instruction` (Ghost Attention) is to be respected in every answer; it stands in no message yet.
    """

    messages: list[Message]
    trained: Literal["all", "last"] = "all"
    instruction: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt (which ends with a user message), the better one first."""

    prompt: list[Message]
    chosen: str
    rejected: str
    _: KW_ONLY
    rating: Rating | None = None
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None


@dataclass(frozen=True)
class Prompt:
    """Messages that end with the user's; `is_safety`: an adversarial one, judged by the safety model.

    `id` names a test prompt to the gold scorers of a miniature world.
    """

    messages: list[Message]
    is_safety: bool = False
    id: str | None = None


class Rows(list[T]):
    """A list of rows that knows what was left out on the way: `skipped`, rows by reason."""

    def __init__(self, rows: Iterable[T] = (), skipped: Counter[str] | None = None) -> None:
        super().__init__(rows)
        self.skipped: Counter[str] = skipped if skipped is not None else Counter()


def check_roles(messages: Sequence[Message], last: str) -> None:
    """Raises DataError unless roles alternate up to `last` (user or assistant)."""
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    roles = [message["role"] for message in turns]
    expected = ["user" if index % 2 == 0 else "assistant" for index in range(len(roles))]
    if roles != expected or not roles or roles[-1] != last:
        raise DataError(
            f"roles are {', '.join(m['role'] for m in messages) or 'missing'}; expected an optional system "
            f"message, then user and assistant in turn, ending with {last}"
        )
