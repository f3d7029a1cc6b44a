"""The rows that stages pass around, and the split of them that never shows one prompt on both sides."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar

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


def opening(row: Any) -> str:
    """What a row is about, as a key for splits: its text, or its messages up to the first user's."""
    if isinstance(row, str):
        return row
    messages = row.prompt if isinstance(row, Comparison) else row.messages
    first_user = next(index for index, message in enumerate(messages) if message["role"] == "user")
    return json.dumps([message["content"] for message in messages[: first_user + 1]], ensure_ascii=False)


def split_held_out(
    rows: Sequence[T], held_out: float | int, seed: int, key: Callable[[T], str] = opening
) -> tuple[list[T], list[T]]:
    """Splits rows into (kept, held out), each in the old order; rows of one key stay together.

    `held_out`: a fraction of the keys (float, below 1) or at least so many rows (int). Which ones is
    decided by a hash of the key and the seed alone, so a row stays on its side when others come or go
    (with a fraction), whatever the order of the rows.
    """
    keys = [key(row) for row in rows]
    places = {name: _place(name, seed) for name in keys}
    if isinstance(held_out, float):
        out = {name for name, place in places.items() if place < held_out}
    else:
        out, counts, taken = set(), Counter(keys), 0
        for name in sorted(places, key=places.__getitem__):
            if taken >= held_out:
                break
            out.add(name)
            taken += counts[name]
    kept = [row for row, name in zip(rows, keys, strict=True) if name not in out]
    return kept, [row for row, name in zip(rows, keys, strict=True) if name in out]


def _place(key: str, seed: int) -> float:
    """A number in [0, 1) drawn for a key."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


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
