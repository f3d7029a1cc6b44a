"""The fake vLLM server as a process: the script that replaces the `python` of an environment."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ..helpers.fake_vllm_client import call, complete, free_port, request_body
from ..helpers.fake_vllm_faults import Faults
from ..helpers.fake_vllm_process import fake_python
from ..helpers.tiny import save_tiny_model
from ..helpers.waiting import wait_until

Process = tuple[subprocess.Popen[bytes], str]  # and the URL of its server
START_S = 60  # of a process, on a busy machine


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that the servers load."""
    return save_tiny_model(tmp_path_factory.mktemp("served") / "model", tokenizer)


def start(script: Path, folder: Path, log: Path, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a server as one starts vLLM."""
    port = free_port()
    command = [script, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", port]
    command += ["--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", 64, "--seed", 0]
    command += ["--tensor-parallel-size", 1, "--logprobs-mode", "processed_logprobs", "--max-logprobs", 0]
    command += ["--generation-config", "vllm", "--gpu-memory-utilization", 0.3, "--enforce-eager"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=output, env=os.environ | environment
        )
    return process, f"http://127.0.0.1:{port}"


def is_healthy(process: subprocess.Popen[bytes], url: str, wait_s: float = START_S) -> bool:
    """Waits until the server answers; False if it ends or if the time is over."""
    end = time.monotonic() + wait_s
    while process.poll() is None and time.monotonic() < end:
        try:
            return call(url, "/health") == (200, None)
        except ConnectionRefusedError:
            time.sleep(0.1)
    return False


def test_a_server_that_dies_and_its_healthy_successor(folder: Path, tmp_path: Path) -> None:
    script = fake_python(tmp_path, Faults(die_after=1, marker=str(tmp_path / "marker")))
    log = tmp_path / "log"
    process, url = start(script, folder, log)
    try:
        assert is_healthy(process, url)
        first = complete(url, model=str(folder))["choices"]
        assert call(url, "/collective_rpc", {})[0] == 404
        with pytest.raises((OSError, http.client.RemoteDisconnected)):
            call(url, "/v1/completions", request_body(model=str(folder)))
        assert process.wait(START_S) == 1
    finally:
        process.kill()
    assert "Traceback" in log.read_text()
    process, url = start(script, folder, log, VLLM_SERVER_DEV_MODE="1")
    try:
        assert is_healthy(process, url)
        assert [complete(url, model=str(folder))["choices"] for _ in range(2)] == [first, first]
        assert call(url, "/reset_prefix_cache", {})[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == 0
    finally:
        process.kill()


def test_death_at_start(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process, _ = start(fake_python(tmp_path, Faults(die_at_start=True)), folder, log)
    assert process.wait(START_S) == 1
    assert "Traceback" in log.read_text()


def test_never_healthy(folder: Path, tmp_path: Path) -> None:
    faults = Faults(never_healthy=True).to_json()
    log = tmp_path / "log"
    process, url = start(fake_python(tmp_path), folder, log, FAKE_VLLM_FAULTS=faults)
    try:
        wait_until(lambda: "never healthy" in log.read_text())
        assert not is_healthy(process, url, wait_s=0.5)
        assert process.poll() is None
    finally:
        process.kill()
