"""The command, the environment and the log of a server, without starting one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llamita.sampling.settings import StartedServers
from llamita.sampling.vllm.process import LAST_LINES, ServerProcess


def process(folder: Path, number: int = 0, **settings: Any) -> ServerProcess:
    started = StartedServers.model_validate({"python": sys.executable, **settings})
    return ServerProcess(started, number, dtype="bfloat16", logs=folder)


def test_the_command(tmp_path: Path) -> None:
    server = process(tmp_path, 1, port=9000, count=2, tensor_parallel_size=4, arguments=["--seed=3"])
    command = server.command(Path("/model"))
    assert command[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    expected = "--model=/model --host=127.0.0.1 --port=9001 --dtype=bfloat16 --tensor-parallel-size=4"
    assert {*expected.split(), "--logprobs-mode=processed_logprobs", "--generation-config=vllm"} < {*command}
    assert command[-1] == "--seed=3", "users have the last word"
    assert server.url == "http://127.0.0.1:9001"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"gpus": [5]}, "5"),
        ({"count": 2, "tensor_parallel_size": 2, "gpus": [4, 5, 6, 7]}, "6,7"),
        ({"count": 2, "tensor_parallel_size": 2}, "2,3"),
    ],
)
def test_each_server_has_gpus_of_its_own(
    settings: dict[str, Any], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    server = process(tmp_path, settings.get("count", 1) - 1, **settings)
    assert server._environment().get("CUDA_VISIBLE_DEVICES") == expected
    assert server._environment()["VLLM_SERVER_DEV_MODE"] == "1"


def test_the_environment_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("HF_HOME", "/cache")
    found = process(tmp_path, environment={"VLLM_SERVER_DEV_MODE": "0"})._environment()
    assert "RANK" not in found, "the launcher's variables are not for the server"
    assert (found["HF_HOME"], found["VLLM_SERVER_DEV_MODE"]) == ("/cache", "0")


def test_the_log_shows_the_cause_and_the_end(tmp_path: Path) -> None:
    server = process(tmp_path)
    assert server.last_lines() == f"\nlog: {server.log}"
    lines = [f"line {number}" for number in range(400)]
    lines[5], lines[250] = "ValueError: too old", "(Worker) RuntimeError: the cause"
    server.log.write_text("\n".join(lines))
    shown = server.last_lines().splitlines()
    assert shown[0] == "  | (Worker) RuntimeError: the cause"
    assert shown[1:-1] == [f"  | {line}" for line in lines[-LAST_LINES:]]
