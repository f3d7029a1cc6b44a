"""A local server with an OpenAI-compatible endpoint that fails, is slow, or answers garbage as told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int | bytes | float


class JudgeServer(ThreadingHTTPServer):
    """Replies by the question: `replies[question]` are the replies to its requests, in order.

    The question is the text after "answer: ", if that occurs in the request. A reply is a text for the
    message's content, a status, bytes for the body, or seconds to wait; the last one is repeated. Questions
    without such replies are answered by `judge`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: dict[str, list[Reply]] = {}
        self.judge: Callable[[str], Reply] = lambda question: f"Rating: 3 for {question}"
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


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"].rpartition("answer: ")[2]
        with self.server.lock:
            self.server.requests.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            replies = self.server.replies.get(text) or [self.server.judge(text)]
            reply = replies[min(self.server.asked[text], len(replies) - 1)]
            self.server.asked[text] += 1
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.at_once, self.server.most_at_once)
        try:
            self.reply(reply)
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def reply(self, reply: Reply) -> None:
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


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    """Runs a server in a thread."""
    with JudgeServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
