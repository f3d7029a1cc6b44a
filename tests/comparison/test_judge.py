"""A judge compares pairs in both orders: fair and biased judges, unreadable replies, resumed runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llamita.comparison.judge import Judged, Pair, judge_pairs, published, read_verdict
from llamita.comparison.settings import JUDGE_PROMPT, PairJudge
from llamita.comparison.verdicts import LOSS, TIE, WIN
from llamita.errors import LlamitaError
from llamita.judges import endpoint

from ..helpers.judge_server import JudgeServer, judge_server
from ..helpers.repository import REPOSITORY
from ..helpers.rows import turn

TEMPLATE = "{prompt}|{a}|{b}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setattr(endpoint, "BACK_OFF", 0.01)
    with judge_server() as made:
        yield made


def settings(server: JudgeServer, **changes: Any) -> PairJudge:
    values = {"base_url": server.url, "model": "m", "prompt": TEMPLATE, "retries": 1}
    return PairJudge.model_validate_json(json.dumps(values | changes))


def judge(server: JudgeServer, path: Path, *pairs: tuple[str, str], **changes: Any) -> Judged:
    compared = {10 + index: Pair(turn("how ?"), *pair) for index, pair in enumerate(pairs)}
    return judge_pairs(settings(server, **changes), compared, path / "replies.jsonl")


def longer(question: str) -> str:
    """A fair judge: the longer answer wins, equally long ones tie."""
    _, first, second = question.split("|")
    better = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
    return f"Both try.\nVerdict: {better}"


def test_a_fair_judge_is_consistent_in_both_orders(server: JudgeServer, tmp_path: Path) -> None:
    server.judge = longer
    found = judge(server, tmp_path, ("long", "no"), ("no", "long"), ("same", "size"), ("equal", "equal"))
    assert found.verdicts == {10: WIN, 11: LOSS, 12: TIE, 13: TIE}
    assert {request["messages"][0]["content"] for request in server.requests} == {
        "how ?|long|no",
        "how ?|no|long",
        "how ?|same|size",
        "how ?|size|same",
    }, "a question that occurs twice is asked once, equal answers not at all"
    figures = found.figures
    assert (figures["pairs"], figures["identical"], figures["unreadable"], figures["rejected"]) == (
        4,
        1,
        0,
        0,
    )
    assert (figures["inconsistent"], figures["shown_first"], figures["shown_second"]) == (0, 1 / 3, 1 / 3)


def test_a_judge_that_prefers_a_place_decides_nothing(server: JudgeServer, tmp_path: Path) -> None:
    server.judge = lambda question: "Verdict: A"
    found = judge(server, tmp_path, ("long", "no"), ("no", "long"))
    assert set(found.verdicts.values()) == {TIE}
    assert (found.figures["inconsistent"], found.figures["shown_first"], found.figures["shown_second"]) == (
        1,
        1,
        0,
    )


def test_errors_are_clustered_by_prompt(server: JudgeServer, tmp_path: Path) -> None:
    """Four pairs of two prompts: of one prompt the judge prefers a place, of the other it is fair."""
    server.judge = lambda question: "Verdict: A" if question.startswith("how") else longer(question)
    answers = [("long", "no"), ("longer", "no")]
    pairs = {
        number: Pair(turn(prompt), *answers[number % 2])
        for number, prompt in enumerate(["how ?", "how ?", "why ?", "why ?"])
    }
    figures = judge_pairs(settings(server), pairs, tmp_path / "replies.jsonl").figures
    # two groups with means 1 and 0 (inconsistent), 1 and 1/2 (first), 0 and 1/2 (second)
    assert (figures["inconsistent"], figures["inconsistent_se"]) == pytest.approx((0.5, 0.5))
    assert (figures["shown_first"], figures["shown_first_se"]) == pytest.approx((0.75, 0.25))
    assert (figures["shown_second"], figures["shown_second_se"]) == pytest.approx((0.25, 0.25))


def test_a_win_and_a_tie_are_a_tie_and_inconsistent(server: JudgeServer, tmp_path: Path) -> None:
    server.replies = {"how ?|x|yy": ["Verdict: B"], "how ?|yy|x": ["Verdict: tie"]}
    found = judge(server, tmp_path, ("x", "yy"))
    assert found.verdicts == {10: TIE}
    assert found.figures["inconsistent"] == 1


def test_missing_verdicts_are_counted_by_reason(server: JudgeServer, tmp_path: Path) -> None:
    server.judge = longer
    server.replies = {
        "how ?|x|garbled": ["I like both."],
        "how ?|filtered|x": [400],
        "how ?|x|filtered": ["no verdict"],
    }
    found = judge(server, tmp_path, ("x", "garbled"), ("filtered", "x"), ("long", "no"))
    assert found.verdicts == {10: None, 11: None, 12: WIN}
    assert (found.figures["unreadable"], found.figures["rejected"]) == (1, 1)
    assert (found.figures["inconsistent"], found.figures["shown_first"]) == (0, 0.5)


def test_a_killed_run_pays_for_no_question_twice(server: JudgeServer, tmp_path: Path) -> None:
    server.judge = longer
    pairs = [("long", "no"), ("no", "longer"), ("dead", "x")]
    server.replies = {"how ?|dead|x": [500]}
    with pytest.raises(LlamitaError, match="failed 2 times"):
        judge(server, tmp_path, *pairs, parallel=1)
    assert sum(server.asked.values()) == 4 + 2, "the last question is not asked"
    server.replies = {}
    assert judge(server, tmp_path, *pairs, parallel=1).verdicts == {10: WIN, 11: LOSS, 12: WIN}
    assert sum(server.asked.values()) == 6 + 2
    stored = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert len(stored) == 6
    assert {row["judgement"] for row in stored} == {"a", "b"}
    assert stored[0]["reply"] == "Both try.\nVerdict: A"


def test_the_stored_replies_have_no_key(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret-123")
    server.judge = longer
    judge(server, tmp_path, ("long", "no"), api_key_env="JUDGE_KEY")
    assert server.headers[0]["authorization"] == "Bearer secret-123"
    assert "secret" not in (tmp_path / "replies.jsonl").read_text()
    assert "secret" not in str(published(settings(server, api_key_env="JUDGE_KEY")))


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: A", "a"),
        ("reasons\n\n**Verdict: B**", "b"),
        ("**Verdict:** tie.", "tie"),
        ("Verdict: a tie", "tie"),
        ("verdict: the answer B", "b"),
        ("At first verdict: A.\nVerdict: A\nNo:\nVerdict: B\n", "b"),
        ("A", "a"),
        ("tie.", "tie"),
        ("", None),
        ("A is better.", None),
        ("Verdict: C", None),
        (JUDGE_PROMPT, None),
        ("Verdict: A or B", None),
        ("Verdict: A and B are equally good", None),
        ('End with "Verdict: A", "Verdict: B" or "Verdict: tie".', None),
    ],
)
def test_only_a_line_with_nothing_but_a_verdict_counts(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply) == verdict


def test_the_prompt_is_a_file_of_the_package_and_published() -> None:
    assert JUDGE_PROMPT in (REPOSITORY / "docs" / "comparison.md").read_text(encoding="utf-8")
    made = PairJudge(base_url="http://host/v1", model="m")
    assert made.prompt == JUDGE_PROMPT
    assert published(made)["prompt"] == JUDGE_PROMPT
    with pytest.raises(ValidationError, match=r"does not contain \{b\}"):
        PairJudge(base_url="http://host/v1", model="m", prompt="{prompt} {a}")
