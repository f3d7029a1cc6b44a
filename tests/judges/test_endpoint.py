"""Questions to an endpoint, against a local server that fails, is slow, or answers garbage."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llamita.errors import ConfigError, DataError, LlamitaError
from llamita.judges import endpoint
from llamita.judges.settings import Endpoint

from ..helpers.judge_server import JudgeServer, judge_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setattr(endpoint, "BACK_OFF", 0.01)
    with judge_server() as made:
        yield made


def settings(server: JudgeServer, **changes: Any) -> Endpoint:
    values = {"base_url": server.url, "model": "m", "retries": 2}
    return Endpoint.model_validate_json(json.dumps(values | changes))


def read(reply: str) -> int | None:
    """The number at the end of a reply."""
    last = reply.rpartition(" ")[2]
    return int(last) if last.isdecimal() else None


def ask(server: JudgeServer, path: Path, texts: list[str], **changes: Any) -> list[Any]:
    """The judgements of questions that are their own ids; "rejected" for those that are missing."""
    found = endpoint.ask(settings(server, **changes), {text: text for text in texts}, read, path=path)
    assert list(found) == [text for text in texts if text in found]
    return [found.get(text, "rejected") for text in texts]


def test_ratings_are_read_and_failures_are_retried(server: JudgeServer, tmp_path: Path) -> None:
    server.replies = {
        "plain": ["Rating: 4"],
        "busy": [429, 503, "Rating: 3"],
        "slow": [0.6, "Rating: 1"],
        "garbled": [b"<html>", "no rating", "Rating: 2"],
    }
    texts = list(server.replies)
    ratings = ask(server, tmp_path / "replies.jsonl", texts, timeout=0.3, temperature=1.0)
    assert ratings == [4, 3, 1, 2]
    assert server.asked == {"plain": 1, "busy": 3, "slow": 2, "garbled": 3}
    assert server.requests[0].keys() == {"model", "messages", "temperature"}
    assert not any("authorization" in headers for headers in server.headers)


@pytest.mark.parametrize("reply", ["", "I can't tell.", b"{", b"[]", b'{"choices": [{"message": {}}]}'])
def test_a_reply_that_cannot_be_read_is_none(server: JudgeServer, tmp_path: Path, reply: str | bytes) -> None:
    server.replies = {"odd": [reply]}
    assert ask(server, tmp_path / "replies.jsonl", ["odd"], temperature=None) == [None]
    assert server.asked["odd"] == 3, "two retries"
    [row] = map(json.loads, (tmp_path / "replies.jsonl").read_text().splitlines())
    assert row == {
        "id": "odd",
        "question": "odd",
        "reply": reply if isinstance(reply, str) else None,
        "judgement": None,
    }


def test_at_temperature_0_a_reply_is_not_asked_for_again(server: JudgeServer, tmp_path: Path) -> None:
    server.replies = {"odd": ["I can't tell.", "Rating: 2"], "broken": [b"{", "Rating: 2"]}
    assert ask(server, tmp_path / "replies.jsonl", ["odd", "broken"]) == [None, 2]
    assert server.asked == {"odd": 1, "broken": 2}, "a body without a message is a failure"


def test_a_resumed_run_asks_only_for_the_rest(server: JudgeServer, tmp_path: Path) -> None:
    server.replies = {"one": ["Rating: 1"], "two": ["none"], "three": [500], "four": ["Rating: 4"]}
    texts = list(server.replies)
    with pytest.raises(LlamitaError, match=r"failed 3 times, the last time with status 500.*to resume"):
        ask(server, tmp_path / "replies.jsonl", texts, parallel=1)
    assert server.asked["four"] == 0, "the queue is stopped"
    with (tmp_path / "replies.jsonl").open("a") as file:
        file.write('{"id": "torn by a ki')
    server.replies["three"] = ["Rating: 3"]
    assert ask(server, tmp_path / "replies.jsonl", texts, parallel=1) == [1, None, 3, 4]
    assert server.asked == {"one": 1, "two": 1, "three": 4, "four": 1}
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 4


def test_requests_run_in_parallel(server: JudgeServer, tmp_path: Path) -> None:
    server.replies = {f"a{n}": [0.2] for n in range(6)}
    assert ask(server, tmp_path / "replies.jsonl", list(server.replies), parallel=3) == [1] * 6
    assert server.most_at_once == 3


def test_the_wait_that_the_endpoint_asks_for_is_respected_up_to_a_limit(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies, server.retry_after = {"one": [429, "Rating: 4"], "two": [503, "Rating: 4"]}, "1"
    started = time.monotonic()
    assert ask(server, tmp_path / "replies.jsonl", ["one"]) == [4]
    assert 1 <= time.monotonic() - started < 3
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.01)
    server.retry_after = "3600"
    assert ask(server, tmp_path / "replies.jsonl", ["two"]) == [4]


def test_a_dead_endpoint_stops_the_run(tmp_path: Path, server: JudgeServer) -> None:
    server.replies = {"one": [5.0]}
    with pytest.raises(LlamitaError, match="the last time with ReadTimeout"):
        ask(server, tmp_path / "replies.jsonl", ["one"], timeout=0.05, retries=1)
    with pytest.raises(LlamitaError, match="the last time with ConnectError"):
        ask(server, tmp_path / "replies.jsonl", ["one"], base_url="http://127.0.0.1:9/v1")


def test_a_rejected_request_is_not_retried_and_its_error_hides_the_key(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret-123")
    server.replies = {"one": [401]}
    with pytest.raises(DataError, match="rejects the request for model 'm' with status 401") as error:
        ask(server, tmp_path / "replies.jsonl", ["one"], api_key_env="JUDGE_KEY")
    assert "secret" not in str(error.value)
    assert server.headers[0]["authorization"] == "Bearer secret-123"
    assert server.asked["one"] == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_question_that_the_endpoint_rejects_is_missing(
    server: JudgeServer, tmp_path: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Content filters of services reject single questions, and only those."""
    server.replies = {"one": ["Rating: 1"], "filtered": [status], "three": ["Rating: 3"]}
    path, texts = tmp_path / "replies.jsonl", list(server.replies)
    assert ask(server, path, texts) == [1, "rejected", 3]
    assert server.asked["filtered"] == 1
    assert f"rejects 1 of 3 questions, which stay unjudged, the last one with status {status}" in (
        " ".join(capsys.readouterr().out.split())
    )
    server.replies["filtered"] = ["Rating: 2"]
    assert ask(server, path, texts) == [1, 2, 3], "a rejection is not stored"
    assert server.asked == {"one": 1, "filtered": 2, "three": 1}


def test_an_endpoint_that_rejects_every_question_stops_the_run(server: JudgeServer, tmp_path: Path) -> None:
    server.replies = {f"a{n}": [400] for n in range(60)}
    with pytest.raises(DataError, match=r"rejects all of 2 questions, the last one with status 400.*; check"):
        ask(server, tmp_path / "replies.jsonl", ["a1", "a2"])
    with pytest.raises(DataError, match="rejects all of 20 questions"):
        ask(server, tmp_path / "replies.jsonl", list(server.replies), parallel=1)
    assert sum(server.asked.values()) == 22


def test_a_stored_reply_shows_that_the_endpoint_does_not_reject_everything(
    server: JudgeServer, tmp_path: Path
) -> None:
    """Callers ask in parts, of which all questions may be filtered."""
    server.replies = {"one": ["Rating: 1"], "filtered": [400], "odd": ["none"]}
    assert ask(server, tmp_path / "replies.jsonl", ["one"]) == [1]
    assert ask(server, tmp_path / "replies.jsonl", ["filtered"]) == ["rejected"]
    assert ask(server, tmp_path / "others.jsonl", ["odd", "filtered"], parallel=1) == [None, "rejected"]


def test_half_a_surrogate_pair_in_a_reply_is_stored(server: JudgeServer, tmp_path: Path) -> None:
    """JSON can contain it, UTF-8 can't."""
    server.replies = {"cut": ["\ud83d Rating: 2"], "next": ["Rating: 3"]}
    path = tmp_path / "replies.jsonl"
    assert ask(server, path, ["cut", "next"]) == [2, 3]
    assert ask(server, path, ["cut", "next"]) == [2, 3]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert {row["reply"] for row in rows} == {"\ud83d Rating: 2", "Rating: 3"}
    assert sum(server.asked.values()) == 2


def test_a_redirect_is_not_followed(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret-123")
    with judge_server() as other:
        server.redirect = other.url
        server.replies = {"one": [302]}
        with pytest.raises(DataError, match=r"redirects to 127\.0\.0\.1 \(status 302\)"):
            ask(server, tmp_path / "replies.jsonl", ["one"], api_key_env="JUDGE_KEY")
        assert other.requests == []


def test_the_key_comes_from_the_environment_only(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="the environment variable JUDGE_KEY is not set"):
        endpoint.api_key(settings(server, api_key_env="JUDGE_KEY"))
    assert endpoint.api_key(settings(server)) is None


@pytest.mark.parametrize("key", ["“secret”", "secret\nsecret", "secret\x00", "a secret"])
def test_a_key_that_no_header_can_contain_is_not_shown(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch, key: str, tmp_path: Path
) -> None:
    server.replies = {"one": ["Rating: 5"]}
    # the environment of a process can't contain a null character
    monkeypatch.setattr(endpoint.os, "environ", {"JUDGE_KEY": key})
    with pytest.raises(ConfigError, match="JUDGE_KEY contains a space or another character") as error:
        ask(server, tmp_path / "replies.jsonl", ["one"], api_key_env="JUDGE_KEY")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"base_url": "file:///etc/passwd"}, "no address of an endpoint"),
        ({"base_url": "localhost:8000"}, "no address of an endpoint"),
        ({"base_url": "http://user:key@host/v1"}, "without user, query and fragment"),
        ({"base_url": "http://host/v1?key=1"}, "without user, query and fragment"),
    ],
)
def test_wrong_settings(changes: dict[str, str], problem: str) -> None:
    values = {"base_url": "http://host/v1", "model": "m"} | changes
    with pytest.raises(ValidationError, match=problem):
        Endpoint.model_validate_json(json.dumps(values))
