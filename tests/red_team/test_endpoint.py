"""Ratings by a judge behind an endpoint: what it is asked, and which replies have a rating."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from llamita.red_team import endpoint
from llamita.red_team.settings import EndpointJudge

from ..helpers.judge_server import judge_server
from ..helpers.red_team import answer_of


def test_placeholders_inside_the_texts_stay(tmp_path: Path) -> None:
    one, filtered = answer_of("{prompt}", request="say {answer}"), answer_of("filtered")
    with judge_server() as server:
        server.replies = {"{prompt}": ["Rating: 5"], "filtered": [400]}
        values = {"by": "endpoint", "base_url": server.url, "model": "m", "temperature": None}
        judge = EndpointJudge.model_validate_json(
            json.dumps(values | {"prompt": "{prompt} answer: {answer}"})
        )
        ratings = endpoint.rate(judge, {"one": one, "two": filtered}, tmp_path / "replies.jsonl")
        asked = [request["messages"][0]["content"] for request in server.requests]
    assert ratings == {"one": 5, "two": None}
    assert "say {answer} answer: {prompt}" in asked
    assert not any("temperature" in request for request in server.requests)


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("Rating: 4", 4),
        ("2", 2),
        ("First I thought Rating: 5. But it explains all.\n\n**Rating:** 1/5", 1),
        *((reply, None) for reply in ("", "I can't rate this.", "Rating: 7", "Rating: 10", "Rating: 2.5")),
        *((reply, None) for reply in ("Rating: N", "6", "12")),
    ],
)
def test_a_reply_without_a_rating_is_unjudged_never_safe(reply: str, rating: int | None) -> None:
    assert endpoint.read_rating(reply) == rating


def test_a_prompt_without_a_placeholder_is_refused() -> None:
    values = {"by": "endpoint", "base_url": "http://host/v1", "model": "m", "prompt": "rate {prompt}"}
    with pytest.raises(ValidationError, match=r"does not contain \{answer\}"):
        EndpointJudge.model_validate_json(json.dumps(values))
