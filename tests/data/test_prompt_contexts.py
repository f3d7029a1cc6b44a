"""Instructions and earlier turns that a source adds to its prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.data.instructions import LANGUAGES, LONG, SHORT, VALUES
from llamita.data.intake import Intake
from llamita.data.rows import Prompt
from llamita.data.settings import PromptSource
from llamita.data.sources import INSTRUCTED, LATER, read_prompts
from llamita.errors import DataError

from ..helpers.rows import turn, write

SYSTEM = {"role": "system", "content": "be kind"}
TEXTS = {
    text.format(value): kind
    for kind, values in VALUES.items()
    for value in values
    for text in (LONG[kind], SHORT[kind])
}


def source(share: float, path: str = "rows.jsonl", **options: Any) -> PromptSource:
    return PromptSource(path=path, format="prompts", instruction_share=share, **options)


def rows(count: int) -> list[dict[str, Any]]:
    plain = [{"messages": turn(f"what is {number} ?"), "category": "illicit"} for number in range(count)]
    dialogues = [{"messages": [*turn(f"is it {number} ?", "yes"), *turn("why ?")]} for number in range(count)]
    return [*plain, *dialogues, {"messages": [SYSTEM, *turn("what is red ?")]}]


def test_a_share_of_the_prompts_gets_an_instruction(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", rows(200))
    intake = Intake()
    plain = read_prompts([source(0.0)], tmp_path)
    read = read_prompts([source(0.25)], tmp_path, intake, seed=7)
    added = [prompt for prompt in read[:-1] if prompt.messages[0]["role"] == "system"]
    assert 70 < len(added) < 130, "a quarter of 400"
    assert intake.changed == {INSTRUCTED: len(added)}
    for before, after in zip(plain, read, strict=True):
        assert after.messages[-len(before.messages) :] == before.messages
        assert (after.category, after.is_safety) == (before.category, before.is_safety)
    assert read[-1] == plain[-1] == Prompt([SYSTEM, *turn("what is red ?")])
    assert {prompt.context for prompt in added} == {"instruction", "instruction_multi_turn"}
    assert {TEXTS[prompt.messages[0]["content"]] for prompt in added} == set(VALUES), "all kinds"
    for prompt in added:
        text = prompt.messages[0]["content"]
        named = [language for language in LANGUAGES if language in text]
        assert prompt.language == (named[0] if TEXTS[text] == "language" else None)
    short = sum(
        text in {SHORT[kind].format(value) for kind in SHORT for value in VALUES[kind]}
        for text in (prompt.messages[0]["content"] for prompt in added)
    )
    assert 0.3 < short / len(added) < 0.7


def test_the_draws_depend_on_seed_and_messages_alone(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", rows(40))
    write(tmp_path / "fewer.jsonl", rows(40)[10:50])
    read = read_prompts([source(0.5)], tmp_path, seed=1)
    assert read_prompts([source(0.5, "fewer.jsonl")], tmp_path, seed=1) == read[10:50]
    assert read_prompts([source(0.5)], tmp_path, seed=2) != read
    assert all(prompt.messages[0]["role"] == "system" for prompt in read_prompts([source(1.0)], tmp_path))


def answered(count: int) -> list[dict[str, Any]]:
    return [{"messages": turn(f"what is {number} ?", f"it is {number}")} for number in range(count)]


def test_a_share_of_the_plain_prompts_gets_earlier_turns(tmp_path: Path) -> None:
    instructed = {"messages": [SYSTEM, *turn("what is red ?", "fine")]}
    write(tmp_path / "rows.jsonl", [*answered(200), instructed])
    chosen = PromptSource(path="rows.jsonl", format="messages", multi_turn_share=0.5)
    intake = Intake()
    read = read_prompts([chosen], tmp_path, intake, seed=3)
    assert read == read_prompts([chosen], tmp_path, seed=3)
    assert read[-1].context == "instruction"
    later = [(number, prompt) for number, prompt in enumerate(read[:-1]) if prompt.turn > 1]
    assert 70 < len(later) < 130
    assert intake.changed == {LATER: len(later)}
    assert {prompt.turn for _, prompt in later} == {2, 3}
    for number, prompt in later:
        assert prompt.messages[-1] == turn(f"what is {number} ?")[0]
        for user, assistant in zip(prompt.messages[:-1:2], prompt.messages[1::2], strict=True):
            other = user["content"].split()[2]
            assert other != str(number), "never the prompt's own answer"
            assert assistant == {"role": "assistant", "content": f"it is {other}"}
    assert [prompt.messages for prompt in read] != [
        prompt.messages for prompt in read_prompts([chosen], tmp_path, seed=4)
    ]


def test_earlier_turns_need_reference_answers(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"messages": turn(f"what is {number} ?")} for number in range(5)])
    without = PromptSource(path="rows.jsonl", format="prompts", multi_turn_share=1.0)
    with pytest.raises(DataError, match=r"rows\.jsonl: multi_turn_share: there are no reference answers"):
        read_prompts([without], tmp_path)


def test_both_are_added(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", answered(20))
    both = PromptSource(path="rows.jsonl", format="messages", multi_turn_share=1.0, instruction_share=1.0)
    assert {prompt.context for prompt in read_prompts([both], tmp_path)} == {"instruction_multi_turn"}


def test_prompts_are_compared_before_instructions_are_added(tmp_path: Path) -> None:
    """A prompt that one source lists as adversarial is so with the instruction of another source."""
    write(tmp_path / "rows.jsonl", rows(5)[:5])
    intake = Intake()
    read = read_prompts([source(1.0), source(0.0, is_safety=True)], tmp_path, intake)
    assert len(read) == 5
    assert {(prompt.is_safety, prompt.context) for prompt in read} == {(True, "instruction")}
    assert intake.skipped == {"repeated prompt": 5}
