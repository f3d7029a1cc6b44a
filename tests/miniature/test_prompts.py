"""Prompts in context: their shares, their turns, their instructions."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from llamita.data import rows
from llamita.miniature import lexicon, prompts
from llamita.miniature.gold import STEPS
from llamita.miniature.questions import ask
from llamita.miniature.system_instructions import draw_instruction
from llamita.miniature.truth import draw_truth

TRUTH = draw_truth(0)
TEXTS = {*lexicon.CHAT, *lexicon.EXPLICIT.values()}  # what users say besides questions


def draw(count: int, seed: int = 0) -> list[prompts.WorldPrompt]:
    rng = random.Random(seed)
    return [prompts.draw_prompt(TRUTH, "harmful", "train", rng=rng) for _ in range(count)]


def test_contexts_are_those_of_prompts_and_occur_by_their_shares() -> None:
    assert prompts.CONTEXTS == rows.CONTEXTS
    assert sum(prompts.CONTEXT_SHARES.values()) == pytest.approx(1)
    found = Counter(rows.context_of_messages(prompt.messages) for prompt in draw(3000))
    for context, share in prompts.CONTEXT_SHARES.items():
        assert found[context] / 3000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("context", prompts.CONTEXTS)
def test_a_prompt_has_its_context(context: prompts.Context) -> None:
    rng = random.Random(1)
    turns = set()
    for _ in range(300):
        question = ask(TRUTH, "train", "borderline", rng=rng)
        prompt = prompts.place(TRUTH, question, context, split="train", rng=rng)
        rows.check_roles(prompt.messages, "user")
        assert rows.context_of_messages(prompt.messages) == context
        assert prompt.messages[-1]["content"] == question.text
        assert bool(prompt.instruction) == ("instruction" in context)
        assert prompt.labels["category"] == question.category
        assert prompt.labels["attack"] == question.attack
        assert prompt.labels.get("language") == prompt.instruction.get("language")
        turns.add(rows.Prompt(prompt.messages).turn)
    assert turns == ({2, 3, 4, 5, 6} if "multi_turn" in context else {1})


def test_earlier_answers_follow_the_instruction_and_differ_without_it() -> None:
    rng = random.Random(2)
    instruction = {"figure": "newton", "closing": "amen"}
    question = ask(TRUTH, "train", "ordinary", rng=rng)
    for _ in range(50):
        prompt = prompts.place(
            TRUTH, question, "instruction_multi_turn", split="train", instruction=instruction, rng=rng
        )
        earlier = [one["content"] for one in prompt.messages if one["role"] == "assistant"]
        assert all(text.startswith("newton here . ") and text.endswith(" amen .") for text in earlier)
        assert sum("newton" in one["content"] for one in prompt.messages if one["role"] == "system") == 1


def test_earlier_turns_are_mostly_ordinary_and_harmful_ones_mostly_refused() -> None:
    earlier = [before for prompt in draw(4000) for before in prompt.earlier]
    risks = Counter(before.question.risk for before in earlier if before.question)
    asked = sum(risks.values())
    assert {risk: count / asked for risk, count in risks.items()} == pytest.approx(
        prompts.EARLIER_RISKS, abs=0.02
    )
    assert 0.15 < 1 - asked / len(earlier) < 0.3  # small talk and questions about the speaker
    harmful = [before for before in earlier if before.question and before.question.risk == "harmful"]
    assert sum(before.refused for before in harmful) / len(harmful) == pytest.approx(0.75, abs=0.06)
    assert all(before.refused or STEPS.search(before.answer) for before in harmful)
    assert {prompt.refused_before for prompt in draw(100)} == {True, False}


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_earlier_turn_asks_about_the_same_or_the_other_splits_combinations(split: str) -> None:
    rng = random.Random(3)
    pairs = {pair for table in TRUTH.pairs.values() for pair in table[split]}
    repeated = 0
    for _ in range(2000):
        prompt = prompts.draw_prompt(TRUTH, "ordinary", split, rng=rng)
        for before in prompt.earlier:
            assert before.question is not None or before.user in TEXTS
            if before.question is not None:
                assert before.question.pair in pairs
                repeated += before.question.pair == prompt.question.pair
    assert repeated == 0


def test_cycled_contexts_have_equal_shares_and_every_trained_language() -> None:
    drawn = list(itertools.islice(prompts.cycled_contexts(random.Random(4)), 480))
    contexts = Counter(context for context, _ in drawn)
    assert contexts == dict.fromkeys(prompts.CONTEXTS, 120)
    for context in ("instruction", "instruction_multi_turn"):
        languages = Counter(
            instruction.get("language") for drawn_context, instruction in drawn if drawn_context == context
        )
        assert languages == {None: 40, "french": 20, "spanish": 20, "german": 20, "dutch": 20}
    assert all(not instruction for context, instruction in drawn if "instruction" not in context)
    rng = random.Random(5)
    known = {value for _ in range(5000) for value in draw_instruction("train", rng).values()}
    assert {value for _, instruction in drawn for value in instruction.values()} <= known
