"""Judgements by scores, gold verdicts and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.chat_format.encoding import encode_answer, encode_prompt
from llamita.model.refusal_classifier import RefusalClassifier
from llamita.model.scorer import Scorer
from llamita.red_team import judges

from ..helpers.chatml import chatml_tokenizer
from ..helpers.red_team import answer_of
from ..helpers.rows import turn
from ..helpers.tiny import save_tiny_reward_model


def violations(found: dict[str, list[judges.Judgement]]) -> dict[str, list[bool | None]]:
    return {version: [one.violation for one in row] for version, row in found.items()}


@pytest.mark.parametrize("name", ["chatml", "llama2"])
def test_answers_below_the_threshold_are_violations(name: str, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer() if name == "chatml" else tokenizer
    folder = save_tiny_reward_model(tmp_path / "safety", tokenizer)
    answers = {
        "sft": [answer_of("hello friend"), answer_of(""), answer_of("thanks <|im_end|></s> yes")],
        "v1/ppo": [answer_of("what is a bolo?")],
        "none": [],
    }
    scorer = Scorer(folder, tokenizer)
    [score] = scorer(
        [encode_prompt(tokenizer, turn("how ?"))],
        [encode_answer(tokenizer, "hello friend")[:-1]],
    ).tolist()
    found = judges.judge_by_safety(answers, folder, threshold=score + 1e-6, dtype="float32", out=tmp_path)
    assert found["sft"][0].details["score"] == pytest.approx(score)
    assert violations(found)["sft"][0] is True
    for version, row in found.items():
        assert len(row) == len(answers[version])
        assert all(one.violation == (one.details["score"] < score + 1e-6) for one in row)
    found = judges.judge_by_safety(answers, folder, threshold=score - 1e-6, dtype="float32", out=tmp_path)
    assert violations(found)["sft"][0] is False


def test_an_answer_beyond_the_context_is_not_judged(tokenizer: Any, tmp_path: Path) -> None:
    folder = save_tiny_reward_model(tmp_path / "safety", tokenizer, max_position_embeddings=32)
    answers = {"sft": [answer_of("fine"), answer_of("bolo " * 40)]}
    found = judges.judge_by_safety(answers, folder, threshold=1.0, dtype="float32", out=tmp_path)
    assert violations(found) == {"sft": [True, None]}


def test_stored_scores_are_not_computed_again(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_reward_model(tmp_path / "safety", tokenizer)
    answers = {"sft": [answer_of("fine")], "ppo": [answer_of("bolo")]}
    undisturbed = judges.judge_by_safety(
        answers, folder, threshold=0.5, dtype="float32", out=tmp_path / "whole"
    )
    scored: list[str] = []
    call = Scorer.__call__

    def killed(self: Scorer, prompts: Any, texts: Any, label: str) -> Any:
        scored.append(label)
        if len(scored) == 2:
            raise KeyboardInterrupt
        return call(self, prompts, texts, label)

    monkeypatch.setattr(Scorer, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        judges.judge_by_safety(answers, folder, threshold=0.5, dtype="float32", out=tmp_path / "out")
    found = judges.judge_by_safety(answers, folder, threshold=0.5, dtype="float32", out=tmp_path / "out")
    assert found == undisturbed
    assert scored == ["sft: safety scores", "ppo: safety scores", "ppo: safety scores"]


def test_the_gold_scorer_finds_harmful_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class StubGold:
        def safety(self, answer: str) -> str:
            return answer

    monkeypatch.setattr(judges.Gold, "load", lambda world: StubGold())
    answers = {"v1": [answer_of("harmful"), answer_of("refusal"), answer_of("invalid")]}
    assert violations(judges.judge_by_gold(answers, tmp_path)) == {"v1": [True, False, False]}


def test_every_answer_that_is_no_refusal_is_a_violation(tmp_path: Path) -> None:
    answers = {
        "v1": [answer_of("I'm sorry, but I can't help."), answer_of("Take a lamp."), answer_of("Nope.")]
    }
    assert violations(judges.judge_by_refusals(answers, None)) == {"v1": [False, True, True]}
    RefusalClassifier({"nope": 5.0}, -1.0).save(tmp_path)
    assert violations(judges.judge_by_refusals(answers, tmp_path)) == {"v1": [True, True, False]}
