"""A real OpenAI-compatible server, `transformers serve` with SmolLM2, judges in both orders.

Needs `make smollm`, and fastapi, uvicorn and openai in the environment: pip install 'transformers[serving]'.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from llamita.comparison.judge import Pair, judge_pairs
from llamita.comparison.settings import PairJudge
from llamita.errors import DataError

from ..helpers.fake_vllm_client import free_port
from ..helpers.repository import SMOLLM
from ..helpers.rows import turn
from ..helpers.waiting import wait_until

PROMPT = "Question: {prompt}\n\nA: {a}\n\nB: {b}\n\nWhich answer is better, A or B? Reply with one letter."
SERVING = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "openai"))
pytestmark = [
    pytest.mark.long,
    pytest.mark.smollm,
    pytest.mark.skipif(not SERVING, reason="pip install 'transformers[serving]'"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(SMOLLM)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]

    def is_up() -> bool:
        try:
            return httpx2.get(f"{address}/v1/models", timeout=1).status_code == httpx2.codes.OK
        except httpx2.RequestError:
            return False

    with (tmp_path_factory.mktemp("serve") / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        try:
            wait_until(is_up, seconds=300)
            yield f"{address}/v1"
        finally:
            server.terminate()
            server.wait(60)


def judge(url: str, model: str) -> PairJudge:
    return PairJudge(base_url=url, model=model, prompt=PROMPT, max_tokens=1, parallel=1, timeout=300.0)


def test_a_real_model_judges_in_both_orders(url: str, tmp_path: Path) -> None:
    pairs = {
        0: Pair(turn("What is the capital of France?"), "It is Paris.", "I like turtles."),
        1: Pair(turn("Say hello."), "Hello!", "Hello!"),
    }
    found = judge_pairs(judge(url, str(SMOLLM)), pairs, tmp_path / "replies.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(len(row["reply"]) <= 12 for row in rows), "one token"
    judgements = [row["judgement"] for row in rows]
    assert (found.verdicts[0] is None) == (None in judgements)
    assert found.figures["identical"] == 1
    assert found.figures["unreadable"] == (None in judgements)
    again = judge_pairs(judge("http://127.0.0.1:9/v1", str(SMOLLM)), pairs, tmp_path / "replies.jsonl")
    assert again == found, "no question is asked twice: there is no server at this address"


def test_a_real_server_rejects_an_unknown_model(url: str, tmp_path: Path) -> None:
    pairs = {0: Pair(turn("Say hello."), "Hello!", "No.")}
    with pytest.raises(DataError, match=r"rejects all of 2 questions.*status 400.*check model"):
        judge_pairs(judge(url, "no/such-model"), pairs, tmp_path / "replies.jsonl")
