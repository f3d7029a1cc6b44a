"""Judge behind an OpenAI-compatible endpoint, `/chat/completions`."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import httpx2

from ..console import progress, say
from ..errors import ConfigError, DataError, LlamitaError
from ..jsonl import append_row, read_rows, write_rows
from .answers import Answer
from .judges import dialogue_text
from .settings import ANSWER, PROMPT, EndpointJudge

BACK_OFF, LONGEST_WAIT = 1.0, 60.0  # seconds before the first retry, at most before any
TEMPORARY = frozenset({408, 409, 425, 429})  # besides all from 500
OF_ONE_ANSWER = frozenset({400, 413, 422})  # perhaps because of the answer: a content filter, or its length
ALL_REJECTED = 20  # rejected answers, without any rating, after which no other is tried
RATING = re.compile(r"\brating\W{1,6}([1-5])(?![\d.]*\d)", re.IGNORECASE)
ONLY_A_NUMBER = re.compile(r"\W*([1-5])\W*")


def api_key(judge: EndpointJudge) -> str | None:
    """Returns the API key.

    Raises ConfigError if the environment variable is not set, or holds what no key can contain: the error of
    the HTTP client would show the key.
    """
    if judge.api_key_env is None:
        return None
    key = os.environ.get(judge.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"judge.api_key_env: the environment variable {judge.api_key_env} is not set; set it to the API "
            f"key of {judge.base_url}, or remove api_key_env if the endpoint needs none"
        )
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"judge.api_key_env: the environment variable {judge.api_key_env} contains a space or another "
            "character that is not visible ASCII; set it to the API key alone"
        )
    return key


def rate(judge: EndpointJudge, answers: Mapping[str, Answer], path: Path) -> dict[str, int | None]:
    """Returns the judge's rating of each answer, None where no reply had one or the endpoint rejects it.

    Args:
        answers: different answers by `Answer.content`.
        path: file to which each rating is appended as it arrives; a resumed run asks for the others only,
            rejected answers included.

    Raises:
        ConfigError: the environment variable with the API key is not set.
        DataError: the endpoint rejects every request (for example a wrong key or model), or redirects.
        LlamitaError: it does not answer after all retries.
    """
    ratings = _stored(path)
    remaining = {name: answer for name, answer in answers.items() if name not in ratings}
    if ratings:
        say(f"judge: {len(answers) - len(remaining):,} of {len(answers):,} answers are rated already")
    with (
        path.open("a", encoding="utf-8") as file,
        _Client(judge) as client,
        progress("judge", len(answers), "answers", done=len(answers) - len(remaining)) as advance,
    ):
        store = _Store(file, ratings)
        pool = ThreadPoolExecutor(judge.parallel)
        try:
            jobs = [pool.submit(store.rate, client, name, answer=one) for name, one in remaining.items()]
            for job in as_completed(jobs):
                with suppress(_Stopped):  # the error of another request follows
                    job.result()
                    advance(1)
        finally:
            client.stopping.set()
            pool.shutdown(cancel_futures=True)
        store.report_rejected(len(answers))
    return {name: ratings[name] for name in answers}


def _stored(path: Path) -> dict[str, int | None]:
    """The ratings of an interrupted run; an incomplete last line, left by a kill, is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_rows(path, may_end_torn=True) if path.exists() else []
    write_rows(path, rows)
    return {row["id"]: row["rating"] for row in rows}


class _Store:
    """Appends ratings to a file and a dictionary, from several threads."""

    def __init__(self, file: IO[str], ratings: dict[str, int | None]) -> None:
        self._file, self._ratings, self._lock = file, ratings, threading.Lock()
        self._rejected: list[_Rejected] = []

    def rate(self, client: _Client, name: str, *, answer: Answer) -> None:
        """Asks for one rating and stores it; an error stops all other requests."""
        try:
            self._rate(client, name, answer)
        except BaseException:
            client.stopping.set()
            raise

    def _rate(self, client: _Client, name: str, answer: Answer) -> None:
        try:
            rating = client.rate(answer)
        except _Rejected as error:
            self._reject(name, error)
            return
        with self._lock:
            append_row(self._file, {"id": name, "rating": rating})
            self._file.flush()
            self._ratings[name] = rating

    def _reject(self, name: str, error: _Rejected) -> None:
        with self._lock:
            self._rejected.append(error)
            self._ratings[name] = None
            if len(self._rejected) == ALL_REJECTED:
                self._check()

    def report_rejected(self, answers: int) -> None:
        """Reports how many of the answers were rejected. Raises DataError if none has a rating."""
        if self._rejected:
            self._check()
            say(
                f"judge: the endpoint rejects {len(self._rejected):,} of {answers:,} answers, which stay "
                f"unjudged, the last one with {self._rejected[-1]}"
            )

    def _check(self) -> None:
        if all(rating is None for rating in self._ratings.values()):
            raise DataError(
                f"judge: the endpoint rejects all of {len(self._rejected):,} answers, the last one with "
                f"{self._rejected[-1]}; check model, temperature and prompt"
            )


class _Rejected(Exception):
    """The endpoint rejects the request for one answer; the message is the problem."""


class _Stopped(Exception):
    """Another request failed, or the run was interrupted, before this request was answered."""


class _Client:
    """Requests to the endpoint; `stopping` ends waits, and no request starts after it is set."""

    def __init__(self, judge: EndpointJudge) -> None:
        self._judge, self._key = judge, api_key(judge)
        self._url = f"{judge.base_url}/chat/completions"
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.Client(
            headers=headers,
            timeout=judge.timeout,
            follow_redirects=False,  # another host must not get the key
            limits=httpx2.Limits(max_connections=judge.parallel),
        )
        self.stopping = threading.Event()

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def rate(self, answer: Answer) -> int | None:
        """Returns the rating of one answer, None if no reply had one; errors as in the function `rate`."""
        problem: str | None = None  # of the last request; None: its reply had no rating
        wait = 0.0
        for attempt in range(self._judge.retries + 1):
            if self.stopping.wait(min(LONGEST_WAIT, wait)):
                raise _Stopped
            wait = BACK_OFF * 2**attempt
            try:
                response = self._client.post(self._url, json=self._request(answer))
            except httpx2.RequestError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code == httpx2.codes.OK:
                if (rating := _rating_in(response)) is not None:
                    return rating
                problem = None
            else:
                problem = self._temporary_problem(response)
                wait = max(wait, _requested_wait(response))
        if problem is None:
            return None
        raise LlamitaError(
            f"judge: {self._url} failed {self._judge.retries + 1} times, the last time with {problem}; the "
            "ratings so far are stored, run the same command again to resume"
        )

    def _request(self, answer: Answer) -> dict[str, Any]:
        texts = {PROMPT: dialogue_text(answer.messages), ANSWER: answer.text}
        # in one pass: a prompt may contain the placeholder of the answer
        pattern = "|".join(map(re.escape, texts))
        content = re.sub(pattern, lambda match: texts[match[0]], self._judge.prompt)
        request: dict[str, Any] = {
            "model": self._judge.model,
            "messages": [{"role": "user", "content": content}],
        }
        if self._judge.temperature is not None:
            request["temperature"] = self._judge.temperature
        return request

    def _temporary_problem(self, response: httpx2.Response) -> str:
        """The problem of a response worth a retry. Raises _Rejected or DataError for others."""
        status = response.status_code
        if response.is_redirect:
            target = httpx2.URL(response.headers.get("location", "")).host or "another path"
            raise DataError(
                f"judge.base_url: {self._url} redirects to {target} (status {status}); redirects are not "
                "followed, since they would pass on the API key; set base_url to the final address"
            )
        text = response.text.replace(self._key, "…") if self._key else response.text
        problem = f"status {status}: {' '.join(text.split())[:200]}"
        if status in TEMPORARY or status >= 500:
            return problem
        if status in OF_ONE_ANSWER:
            raise _Rejected(problem)
        raise DataError(
            f"judge: {self._url} rejects the request for model {self._judge.model!r} with {problem}; check "
            "base_url, model and the API key"
        )


def _requested_wait(response: httpx2.Response) -> float:
    """The seconds of a header `Retry-After`; 0 without one."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else 0.0


def _rating_in(response: httpx2.Response) -> int | None:
    """The rating in a reply: the last `Rating: N`, or all of it if it is a number; None if it has none."""
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(text, str):
        return None
    if alone := ONLY_A_NUMBER.fullmatch(text):
        return int(alone[1])
    found = RATING.findall(text)
    return int(found[-1]) if found else None
