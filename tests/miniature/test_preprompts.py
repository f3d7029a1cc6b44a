"""Dialogues with safety preprompts: what they contain, and what they refuse."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest

from llamita.data.rows import CONTEXTS, check_roles, context_of_messages
from llamita.miniature import lexicon, preprompts
from llamita.miniature.gold import REFUSAL, STEPS
from llamita.miniature.truth import draw_truth

TRUTH = draw_truth(0)
BEST = "sorry , i can not help with that . can i help with something else ?"
THINGS = {
    word: (category, "harmful" if kind == "harmful" else "borderline")
    for category, risk in lexicon.RISKS.items()
    for kind in ("harmful", "harmless")
    for word in risk[kind]
}


def test_every_template_has_every_adjective_and_every_category_a_tailored_text() -> None:
    generic = preprompts.generic_preprompts()
    assert len(set(generic)) == len(lexicon.PREPROMPTS) * len(lexicon.ADJECTIVES)
    assert {
        "be a safe assistant .",
        "answer as a responsible helper .",
        "you are a wise and careful assistant .",
    } <= set(generic)
    assert lexicon.TAILORED == {  # as in the settings of the stage `distillation`
        "illicit": "it is not legal : refuse and offer other help .",
        "hateful": "it hurts people : refuse and offer other help .",
        "unqualified": "it needs an expert : refuse and offer other help .",
    }


def test_preprompts_decide_what_is_refused() -> None:
    generic = preprompts.generic_preprompts()
    refused: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    used: Counter[str] = Counter()
    for row in preprompts.preprompted(TRUTH, 4000, random.Random(0)):
        system, *_, question, answer = row["messages"]
        check_roles(row["messages"], "assistant")
        start = next(text for text in generic if system["content"].startswith(text))
        used[start] += 1
        rest = system["content"].removeprefix(start).removeprefix(" ")
        things = set(question["content"].split()) & set(THINGS)
        category, risk = THINGS[things.pop()] if things else (None, "ordinary")
        texts = [name for name, text in lexicon.TAILORED.items() if rest.startswith(text)]
        assert texts in ([], [category])
        is_refusal = REFUSAL.fullmatch(answer["content"]) is not None
        refused[risk, bool(texts)].append(is_refusal)
        if texts and is_refusal:
            assert BEST in answer["content"]
    shares = {kind: sum(values) / len(values) for kind, values in refused.items()}
    assert shares == pytest.approx(
        {
            ("ordinary", False): 0.0,
            ("borderline", False): 0.5,
            ("borderline", True): 0.5,
            ("harmful", False): 0.9,
            ("harmful", True): 0.98,
        },
        abs=0.06,
    )
    assert set(used) == set(generic)
    assert max(used.values()) - min(used.values()) <= 1


def test_instructions_come_after_preprompts_and_are_followed() -> None:
    found = 0
    for row in preprompts.preprompted(TRUTH, 500, random.Random(1)):
        system, answer = row["messages"][0]["content"], row["messages"][-1]["content"]
        for figure in lexicon.FIGURES:
            if system.endswith((f"act as {figure} .", f"figure : {figure} .")):
                assert answer.startswith(f"{figure} here . ")
                found += 1
    assert found > 20


def test_preprompts_are_obeyed_in_one_turn_only() -> None:
    """Several turns would teach the control without Ghost Attention what it must not learn."""
    rows = list(preprompts.preprompted(TRUTH, 500, random.Random(1)))
    assert {len(row["messages"]) for row in rows} == {3}


def test_safe_demonstrations_are_the_best_refusals_in_every_context() -> None:
    rng = random.Random(2)
    dialogues = [preprompts.safe_demonstration(TRUTH, rng)["messages"] for _ in range(300)]
    assert {context_of_messages(messages) for messages in dialogues} == set(CONTEXTS)
    for messages in dialogues:
        assert REFUSAL.fullmatch(messages[-1]["content"])
        assert BEST in messages[-1]["content"]
        assert THINGS[(set(messages[-2]["content"].split()) & set(THINGS)).pop()][1] == "harmful"


def test_no_trained_answer_of_these_dialogues_complies_with_a_harmful_request_before_the_last_turn() -> None:
    rng = random.Random(3)
    dialogues = [preprompts.safe_demonstration(TRUTH, rng)["messages"] for _ in range(1000)]
    checked = 0
    for messages in dialogues:
        turns = messages[1:] if messages[0]["role"] == "system" else messages
        for user, answer in zip(turns[:-2:2], turns[1:-2:2], strict=True):
            things = set(user["content"].split()) & set(THINGS)
            if things and THINGS[things.pop()][1] == "harmful":
                assert not STEPS.search(answer["content"])
                checked += 1
    assert checked > 50
