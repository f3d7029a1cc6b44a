"""A fault in one of two ranks ends both within a minute and names rank and phase; the next start resumes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..helpers.faults import Fault, start_two_ranks
from ..helpers.long_pretraining import pretraining
from ..helpers.repository import zero_file
from ..helpers.stage_processes import command, start, wait

LIMIT = 8.0  # seconds without progress


@pytest.mark.long
@pytest.mark.parametrize(
    ("phase", "step", "rank"),
    [("loading", None, 1), ("training", 8, 0), ("training", 8, 1), ("evaluation", 8, 1), ("saving", 9, 0)],
)
def test_a_fault_ends_all_ranks_and_the_next_start_resumes(
    root: Path, phase: str, step: int | None, rank: int
) -> None:
    chosen, inputs = pretraining(root, eval_steps=4, rank_timeout=LIMIT)
    chosen["trainer"] |= {"max_steps": 16}
    (root / "pretrain.yaml").write_text(json.dumps(chosen))
    arguments = command("pretrain", root / "pretrain.yaml", root / "out", inputs, 1)[3:]
    place = rf"rank {rank} \({phase}(, step {step})?\): error: "
    for kind, message in (
        ("error", "OSError: injected"),
        ("hang", r"no progress for \d+ s, at \S+faults\.py:"),
    ):
        started = time.monotonic()
        codes, output = start_two_ranks(arguments, root, Fault(rank, phase, step, kind))
        assert codes == [1, 1], output
        assert time.monotonic() - started < 60, output
        errors = re.findall(r"^.*error: .*$", output, re.MULTILINE)
        assert re.match(place + message, errors[0]), output
        assert len(errors) == 1, output  # the other rank's own error is a consequence
        assert not (root / "out").exists()
    codes, output = start_two_ranks(arguments, root)
    assert codes == [0, 0], output
    assert ("resuming after step" in output) == (phase != "loading")
    steps = [json.loads(row)["step"] for row in (root / "out" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 16
    assert steps == sorted(steps)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_named_under_the_launcher(root: Path, rank: int) -> None:
    chosen, inputs = pretraining(root, deepspeed=zero_file(3))
    (root / "pretrain.yaml").write_text(json.dumps(chosen))
    log, out = root / "log", root / "out"
    process = start(command("pretrain", root / "pretrain.yaml", out, inputs, 2), log)
    resume = out.with_name("out.partial") / "resume"
    assert wait(
        process, lambda: any(len(path.name) > len("checkpoint-9") for path in resume.glob("checkpoint-*"))
    )
    _rank_of(process.pid, rank).send_signal(signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(60) != 0
    assert time.monotonic() - killed < 60
    output = log.read_text()
    errors = re.findall(r"^.*error: .*$", output, re.MULTILINE)
    assert re.match(rf"rank {rank} \(\w+, step \d+\): error: ended without an error message", errors[0]), (
        output
    )
    assert len(errors) == 2, output  # the other is the launcher's
    assert not psutil.Process(os.getpid()).children(recursive=True)


def _rank_of(launcher: int, rank: int) -> psutil.Process:
    """The process of a rank below a launcher."""
    children: list[Any] = psutil.Process(launcher).children(recursive=True)
    return next(child for child in children if child.environ().get("RANK") == str(rank))
