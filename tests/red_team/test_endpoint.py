"""The judge behind an endpoint, against a local server that fails, is slow, or answers garbage."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llamita.errors import ConfigError, DataError, LlamitaError
from llamita.red_team import endpoint
from llamita.red_team.answers import Answer
from llamita.red_team.settings import EndpointJudge

from ..helpers.red_team import answer_of


class Server(ThreadingHTTPServer):
    """Replies by the answer in the request: `replies[answer]` are the replies to its requests, in order.

    A reply is a text for the message's content, a status, bytes for the body, or seconds to wait; the last
    one is repeated.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, list[str | int | bytes | float]] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.asked: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.redirect = "http://127.0.0.1:9/v1"
        self.retry_after = ""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"].rpartition("answer: ")[2]
        with self.server.lock:
            self.server.requests.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            replies = self.server.replies[text]
            reply = replies[min(self.server.asked[text], len(replies) - 1)]
            self.server.asked[text] += 1
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.at_once, self.server.most_at_once)
        try:
            self.reply(reply)
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def reply(self, reply: str | int | bytes | float) -> None:
        if isinstance(reply, float):
            time.sleep(reply)
            reply = "Rating: 1"
        content = json.dumps({"choices": [{"message": {"content": reply}}]} if isinstance(reply, str) else {})
        self.send_response(reply if isinstance(reply, int) else 200)
        if reply == 302:
            self.send_header("Location", self.server.redirect)
        if self.server.retry_after:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        key = self.headers.get("Authorization", "")
        body = f"failed with {key}".encode() if isinstance(reply, int) else content.encode()
        self.wfile.write(reply if isinstance(reply, bytes) else body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "BACK_OFF", 0.01)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def judge(server: Server, **changes: Any) -> EndpointJudge:
    values = {"by": "endpoint", "base_url": server.url, "model": "m", "prompt": "{prompt} answer: {answer}"}
    return EndpointJudge.model_validate_json(json.dumps(values | {"retries": 2} | changes))


def rate(server: Server, path: Path, texts: list[str], **changes: Any) -> list[int | None]:
    answers: dict[str, Answer] = {one.content: one for one in map(answer_of, texts)}
    ratings = endpoint.rate(judge(server, **changes), answers, path)
    assert list(ratings) == list(answers)
    return list(ratings.values())


def test_ratings_are_read_and_failures_are_retried(server: Server, tmp_path: Path) -> None:
    server.replies = {
        "plain": ["Rating: 4"],
        "number": ["2"],
        "reasons": ["First I thought Rating: 5. But it explains all.\n\n**Rating:** 1/5"],
        "busy": [429, 503, "Rating: 3"],
        "slow": [0.6, "Rating: 5"],
        "garbled": [b"<html>", "no rating", "Rating: 2"],
    }
    texts = list(server.replies)
    ratings = rate(server, tmp_path / "ratings.jsonl", texts, timeout=0.3)
    assert ratings == [4, 2, 1, 3, 5, 2]
    assert server.asked == {"plain": 1, "number": 1, "reasons": 1, "busy": 3, "slow": 2, "garbled": 3}
    assert server.requests[0].keys() == {"model", "messages", "temperature"}
    assert not any("authorization" in headers for headers in server.headers)


@pytest.mark.parametrize(
    "reply",
    ["", "I can't rate this.", "Rating: 7", "Rating: 10", "Rating: 2.5", "Rating: N", "6", "12", b"{", b"[]"],
)
def test_a_reply_without_a_rating_is_unjudged_never_safe(
    server: Server, tmp_path: Path, reply: str | bytes
) -> None:
    server.replies = {"odd": [reply]}
    assert rate(server, tmp_path / "ratings.jsonl", ["odd"]) == [None]
    assert server.asked["odd"] == 3, "two retries"


def test_a_resumed_run_asks_only_for_the_rest(server: Server, tmp_path: Path) -> None:
    server.replies = {"one": ["Rating: 1"], "two": ["none"], "three": [500], "four": ["Rating: 4"]}
    texts = list(server.replies)
    with pytest.raises(LlamitaError, match=r"failed 3 times, the last time with status 500.*to resume"):
        rate(server, tmp_path / "ratings.jsonl", texts, parallel=1)
    assert server.asked["four"] == 0, "the queue is stopped"
    with (tmp_path / "ratings.jsonl").open("a") as file:
        file.write('{"id": "torn by a ki')
    server.replies["three"] = ["Rating: 3"]
    assert rate(server, tmp_path / "ratings.jsonl", texts, parallel=1) == [1, None, 3, 4]
    assert server.asked == {"one": 1, "two": 3, "three": 4, "four": 1}
    assert len((tmp_path / "ratings.jsonl").read_text().splitlines()) == 4


def test_requests_run_in_parallel(server: Server, tmp_path: Path) -> None:
    server.replies = {f"a{n}": [0.2] for n in range(6)}
    assert rate(server, tmp_path / "ratings.jsonl", list(server.replies), parallel=3) == [1] * 6
    assert server.most_at_once == 3


def test_the_wait_that_the_endpoint_asks_for_is_respected_up_to_a_limit(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies, server.retry_after = {"one": [429, "Rating: 4"], "two": [503, "Rating: 4"]}, "1"
    started = time.monotonic()
    assert rate(server, tmp_path / "ratings.jsonl", ["one"]) == [4]
    assert 1 <= time.monotonic() - started < 3
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.01)
    server.retry_after = "3600"
    assert rate(server, tmp_path / "ratings.jsonl", ["two"]) == [4]


def test_a_dead_endpoint_stops_the_stage(tmp_path: Path, server: Server) -> None:
    server.replies = {"one": [5.0]}
    with pytest.raises(LlamitaError, match="the last time with ReadTimeout"):
        rate(server, tmp_path / "ratings.jsonl", ["one"], timeout=0.05, retries=1)
    with pytest.raises(LlamitaError, match="the last time with ConnectError"):
        rate(server, tmp_path / "ratings.jsonl", ["one"], base_url="http://127.0.0.1:9/v1")


def test_a_rejected_request_is_not_retried_and_its_error_hides_the_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret-123")
    server.replies = {"one": [401]}
    with pytest.raises(DataError, match="rejects the request for model 'm' with status 401") as error:
        rate(server, tmp_path / "ratings.jsonl", ["one"], api_key_env="JUDGE_KEY")
    assert "secret" not in str(error.value)
    assert server.headers[0]["authorization"] == "Bearer secret-123"
    assert server.asked["one"] == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_answer_that_the_endpoint_rejects_is_unjudged(
    server: Server, tmp_path: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Content filters of services reject single prompts of red teaming, and only those."""
    server.replies = {"one": ["Rating: 1"], "filtered": [status], "three": ["Rating: 3"]}
    path, texts = tmp_path / "ratings.jsonl", list(server.replies)
    assert rate(server, path, texts) == [1, None, 3]
    assert server.asked["filtered"] == 1
    assert f"rejects 1 of 3 answers, which stay unjudged, the last one with status {status}" in (
        " ".join(capsys.readouterr().out.split())
    )
    server.replies["filtered"] = ["Rating: 2"]
    assert rate(server, path, texts) == [1, 2, 3], "a rejection is not stored"
    assert server.asked == {"one": 1, "filtered": 2, "three": 1}


def test_an_endpoint_that_rejects_every_answer_stops_the_stage(server: Server, tmp_path: Path) -> None:
    server.replies = {f"a{n}": [400] for n in range(60)}
    with pytest.raises(DataError, match=r"rejects all of 2 answers, the last one with status 400.*; check"):
        rate(server, tmp_path / "ratings.jsonl", ["a1", "a2"])
    with pytest.raises(DataError, match="rejects all of 20 answers"):
        rate(server, tmp_path / "ratings.jsonl", list(server.replies), parallel=1)
    assert sum(server.asked.values()) == 22


def test_a_redirect_is_not_followed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret-123")
    with Server() as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        server.redirect = other.url
        server.replies = {"one": [302]}
        with pytest.raises(DataError, match=r"redirects to 127\.0\.0\.1 \(status 302\)"):
            rate(server, tmp_path / "ratings.jsonl", ["one"], api_key_env="JUDGE_KEY")
        assert other.requests == []
        other.shutdown()


def test_the_key_comes_from_the_environment_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="the environment variable JUDGE_KEY is not set"):
        endpoint.api_key(judge(server, api_key_env="JUDGE_KEY"))
    assert endpoint.api_key(judge(server)) is None


@pytest.mark.parametrize("key", ["“secret”", "secret\nsecret", "secret\x00", "a secret"])
def test_a_key_that_no_header_can_contain_is_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, key: str, tmp_path: Path
) -> None:
    server.replies = {"one": ["Rating: 5"]}
    # the environment of a process can't contain a null character
    monkeypatch.setattr(endpoint.os, "environ", {"JUDGE_KEY": key})
    with pytest.raises(ConfigError, match="JUDGE_KEY contains a space or another character") as error:
        rate(server, tmp_path / "ratings.jsonl", ["one"], api_key_env="JUDGE_KEY")
    assert "secret" not in str(error.value)


def test_placeholders_inside_the_texts_stay(server: Server, tmp_path: Path) -> None:
    server.replies = {"{prompt}": ["Rating: 5"]}
    one = answer_of("{prompt}", request="say {answer}")
    endpoint.rate(judge(server, temperature=None), {one.content: one}, tmp_path / "ratings.jsonl")
    [request] = server.requests
    assert request["messages"] == [{"role": "user", "content": "say {answer} answer: {prompt}"}]
    assert "temperature" not in request


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"base_url": "file:///etc/passwd"}, "no address of an endpoint"),
        ({"base_url": "localhost:8000"}, "no address of an endpoint"),
        ({"base_url": "http://user:key@host/v1"}, "without user, query and fragment"),
        ({"base_url": "http://host/v1?key=1"}, "without user, query and fragment"),
        ({"prompt": "rate {prompt}"}, "does not contain {answer}"),
    ],
)
def test_wrong_settings(changes: dict[str, str], problem: str) -> None:
    values = {"by": "endpoint", "base_url": "http://host/v1", "model": "m"} | changes
    with pytest.raises(ValidationError, match=problem):
        EndpointJudge.model_validate_json(json.dumps(values))
