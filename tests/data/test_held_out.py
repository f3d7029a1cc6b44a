"""The split into training and held-out rows without common prompts."""

from __future__ import annotations

import random

import pytest

from llamita.data.held_out import opening, split_held_out
from llamita.data.rows import Comparison, Dialogue, Prompt


def comparison(prompt: str, number: int) -> Comparison:
    return Comparison([{"role": "user", "content": prompt}], f"good {number}", f"bad {number}")


ROWS = [comparison(f"prompt {number % 200}", number) for number in range(1000)]  # each prompt five times


@pytest.mark.parametrize("held_out", [0.2, 150])
def test_a_prompt_is_in_one_part_only(held_out: float | int) -> None:
    kept, out = split_held_out(ROWS, held_out, seed=1)
    assert {opening(row) for row in kept}.isdisjoint(opening(row) for row in out)
    assert len(kept) + len(out) == len(ROWS)
    assert all(rows == [row for row in ROWS if row in rows] for rows in (kept, out))  # the original order


def test_sizes() -> None:
    assert len(split_held_out(ROWS, 150, seed=1)[1]) == 150
    assert len(split_held_out(ROWS, 151, seed=1)[1]) == 155  # at least that many: prompts are not split
    assert 140 < len(split_held_out(ROWS, 0.2, seed=1)[1]) < 260
    assert split_held_out(ROWS, 0, seed=1) == (ROWS, [])


def test_only_seed_and_prompt_decide() -> None:
    out = split_held_out(ROWS, 0.2, seed=1)[1]
    shuffled = [*random.Random(0).sample(ROWS, len(ROWS)), comparison("new", 1)]
    again = split_held_out(shuffled, 0.2, seed=1)[1]
    assert {opening(row) for row in again} - {opening(comparison("new", 1))} == {opening(row) for row in out}
    assert split_held_out(ROWS, 0.2, seed=2)[1] != out


def test_openings() -> None:
    system = {"role": "system", "content": "be brief"}
    user, other = ({"role": "user", "content": text} for text in ("hi", "bye"))
    answer = {"role": "assistant", "content": "hello"}
    short, long = Dialogue([user, answer]), Dialogue([user, answer, other, answer])
    assert opening(short) == opening(long) == opening(Prompt([user]))
    assert opening(Dialogue([system, user, answer])) != opening(short)
    assert opening("a text") == "a text"
