"""Questions to a judge behind an OpenAI-compatible endpoint, `/chat/completions`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar

import httpx2

from ..console import progress, say
from ..errors import ConfigError, DataError, LlamitaError
from ..jsonl import append_row, read_rows, write_rows
from .settings import Endpoint

T = TypeVar("T")

BACK_OFF, LONGEST_WAIT = 1.0, 60.0  # seconds before the first retry, at most before any
TEMPORARY = frozenset({408, 409, 425, 429})  # besides all from 500
OF_ONE_QUESTION = frozenset({400, 413, 422})  # perhaps because of its text: a content filter, or its length
ALL_REJECTED = 20  # rejected questions, without any reply, after which no other is tried


def api_key(endpoint: Endpoint) -> str | None:
    """Returns the API key.

    Raises ConfigError if the environment variable is not set, or holds what no key can contain: the error of
    the HTTP client would show the key.
    """
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"judge: the environment variable {endpoint.api_key_env} is not set; set it to the API key of "
            f"{endpoint.base_url}, or name none if the endpoint needs none"
        )
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"judge: the environment variable {endpoint.api_key_env} contains a space or another character "
            "that is not visible ASCII; set it to the API key alone"
        )
    return key


def ask(
    endpoint: Endpoint, questions: Mapping[str, str], read: Callable[[str], T | None], *, path: Path
) -> dict[str, T | None]:
    """Returns the judgement of each question, None where no reply could be read.

    Questions that the endpoint rejects, for example because of a content filter, are missing in the result
    and reported.

    Args:
        questions: texts by id.
        read: returns the judgement in a reply, None if it has none.
        path: file to which `{"id", "question", "reply", "judgement"}` is appended for each question as it is
            answered; a resumed run asks the other questions only, the rejected ones included.

    Raises:
        ConfigError: the environment variable with the API key is not set.
        DataError: the endpoint redirects, or rejects every request (for example a wrong key or model): in
            this call, and no reply is stored in `path`.
        LlamitaError: it does not answer after all retries.
    """
    stored = _stored(path)
    known = {name: row["judgement"] for name, row in stored.items() if name in questions}
    remaining = {name: text for name, text in questions.items() if name not in known}
    if known:
        say(f"judge: {len(known):,} of {len(questions):,} questions are answered already")
    with (
        path.open("a", encoding="utf-8", errors="backslashreplace") as file,  # as write_rows does
        _Client(endpoint) as client,
        progress("judge", len(questions), "questions", done=len(known)) as advance,
    ):
        store = _Store(file, known, replied=bool(stored))
        pool = ThreadPoolExecutor(endpoint.parallel)
        try:
            jobs = [
                pool.submit(store.ask, client, name, text=text, read=read) for name, text in remaining.items()
            ]
            for job in as_completed(jobs):
                with suppress(_Stopped):  # the error of another request follows
                    job.result()
                    advance(1)
        except (KeyboardInterrupt, SystemExit):
            say(f"judge: stopping after the requests that are running, at most {endpoint.timeout:g} seconds")
            raise
        finally:
            client.stopping.set()
            pool.shutdown(cancel_futures=True)
        store.report_rejected(len(questions))
    return {name: known[name] for name in questions if name in known}


def _stored(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of an interrupted run by id; an incomplete last line, left by a kill, is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_rows(path, may_end_torn=True) if path.exists() else []
    write_rows(path, rows)
    return {row["id"]: row for row in rows}


class _Store(Generic[T]):
    """Appends judgements to a file and a dictionary, from several threads.

    `replied`: whether the endpoint has replied to any question before.
    """

    def __init__(self, file: IO[str], judgements: dict[str, T | None], *, replied: bool) -> None:
        self._file, self._judgements, self._lock = file, judgements, threading.Lock()
        self._replied = replied
        self._rejected: list[_Rejected] = []

    def ask(self, client: _Client, name: str, *, text: str, read: Callable[[str], T | None]) -> None:
        """Asks one question and stores the judgement; an error stops all other requests."""
        try:
            self._ask(client, name, text=text, read=read)
        except BaseException:
            client.stopping.set()
            raise

    def _ask(self, client: _Client, name: str, *, text: str, read: Callable[[str], T | None]) -> None:
        try:
            reply = client.ask(text, read)
        except _Rejected as error:
            self._reject(error)
            return
        with self._lock:
            row = {"id": name, "question": text, "reply": reply.text, "judgement": reply.judgement}
            append_row(self._file, row)
            self._file.flush()
            self._judgements[name] = reply.judgement
            self._replied = True

    def _reject(self, error: _Rejected) -> None:
        with self._lock:
            self._rejected.append(error)
            if len(self._rejected) == ALL_REJECTED:
                self._check()

    def report_rejected(self, questions: int) -> None:
        """Reports how many of the questions were rejected. Raises DataError if none was ever answered."""
        if self._rejected:
            self._check()
            say(
                f"judge: the endpoint rejects {len(self._rejected):,} of {questions:,} questions, which stay "
                f"unjudged, the last one with {self._rejected[-1]}"
            )

    def _check(self) -> None:
        if not self._replied:
            raise DataError(
                f"judge: the endpoint rejects all of {len(self._rejected):,} questions, the last one with "
                f"{self._rejected[-1]}; check model, temperature and prompt"
            )


class _Reply(NamedTuple, Generic[T]):
    """The last reply to a question (None: its body was no message) and the judgement in it."""

    text: str | None
    judgement: T | None


class _Rejected(Exception):
    """The endpoint rejects one question; the message is the problem."""


class _Stopped(Exception):
    """Another request failed, or the run was interrupted, before this request was answered."""


class _Client:
    """Requests to the endpoint; `stopping` ends waits, and no request starts after it is set."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._key = endpoint, api_key(endpoint)
        self._url = f"{endpoint.base_url}/chat/completions"
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.Client(
            headers=headers,
            timeout=endpoint.timeout,
            follow_redirects=False,  # another host must not get the key
            limits=httpx2.Limits(max_connections=endpoint.parallel),
        )
        self.stopping = threading.Event()

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, question: str, read: Callable[[str], T | None]) -> _Reply[T]:
        """Returns the first reply with a judgement, or the last one; errors as in the function `ask`.

        At temperature 0 the first reply is the last one, whether it has a judgement or not.
        """
        problem: str | None = None  # of the last request; None: its reply could not be read
        text: str | None = None
        wait = 0.0
        for attempt in range(self._endpoint.retries + 1):
            if self.stopping.wait(min(LONGEST_WAIT, wait)):
                raise _Stopped
            wait = BACK_OFF * 2**attempt
            try:
                response = self._client.post(self._url, json=self._request(question))
            except httpx2.RequestError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code == httpx2.codes.OK:
                problem, text = None, _message_in(response)
                if text is not None:
                    judgement = read(text)
                    if judgement is not None or self._endpoint.temperature == 0:
                        return _Reply(text, judgement)  # the same question would get the same reply
                    wait = 0.0  # the endpoint is not overloaded
            else:
                problem = self._temporary_problem(response)
                wait = max(wait, _requested_wait(response))
        if problem is None:
            return _Reply(text, None)
        raise LlamitaError(
            f"judge: {self._url} failed {self._endpoint.retries + 1} times, the last time with {problem}; "
            "the judgements so far are stored, run the same command again to resume"
        )

    def _request(self, question: str) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": question}],
        }
        limits = {"temperature": self._endpoint.temperature, "max_tokens": self._endpoint.max_tokens}
        return request | {name: value for name, value in limits.items() if value is not None}

    def _temporary_problem(self, response: httpx2.Response) -> str:
        """The problem of a response worth a retry. Raises _Rejected or DataError for others."""
        status = response.status_code
        if response.is_redirect:
            target = httpx2.URL(response.headers.get("location", "")).host or "another path"
            raise DataError(
                f"judge: {self._url} redirects to {target} (status {status}); redirects are not followed, "
                "since they would pass on the API key; give the final address"
            )
        text = response.text.replace(self._key, "…") if self._key else response.text
        problem = f"status {status}: {' '.join(text.split())[:200]}"
        if status in TEMPORARY or status >= 500:
            return problem
        if status in OF_ONE_QUESTION:
            raise _Rejected(problem)
        raise DataError(
            f"judge: {self._url} rejects the request for model {self._endpoint.model!r} with {problem}; "
            "check the address, the model and the API key"
        )


def _requested_wait(response: httpx2.Response) -> float:
    """The seconds of a header `Retry-After`; 0 without one."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else 0.0


def _message_in(response: httpx2.Response) -> str | None:
    """The text of a reply; None if the body is no JSON with a message."""
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    return text if isinstance(text, str) else None
