"""Runs a script of this folder as ranks of one job on CPUs, one process each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .two_ranks import free_port


def on_ranks(script: str, ranks: int, out: Path, *arguments: str, seconds: float = 300) -> list[Any]:
    """Runs `python SCRIPT OUT ARGUMENTS…` on each rank; returns the content of each `OUT/<rank>.json`."""
    shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, str(Path(__file__).with_name(script)), str(out), *arguments]
    processes = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]
    assert [process.wait(timeout=seconds) for process in processes] == [0] * ranks
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(ranks)]
