"""The parts of `gpu.py`, each a generator of what it has measured so far, and their limits."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from gpu_cases import compile_, memory, pretrain, sft
from gpu_losses import losses
from gpu_sizes import Result, Sizes, new_model

PIPELINE = Path(__file__).resolve().parent.parent / "configs" / "smoke" / "pipeline.yaml"


def smoke(sizes: Sizes, _: Mapping[str, Any]) -> Iterator[Result]:
    run = f"gpu-{datetime.now():%m%d-%H%M%S}"
    command = [sys.executable, "-m", "llamita.cli", "--debug", "run", str(PIPELINE), f"name={run}"]
    process = subprocess.Popen([*command, *sizes.pipeline])
    last: Result = {}
    while True:
        code = process.poll()
        if (stages := _stages(Path("runs") / run)) != last:
            last = stages
            yield last
        if code is not None:
            break
        time.sleep(1)
    if code:
        raise RuntimeError(f"llamita run: exit code {code}")


def _stages(run: Path) -> Result:
    """Seconds and metrics of the finished stages of a run, and how far an unfinished one is."""
    finished = {}
    for path in sorted(run.glob("**/manifest.json"), key=lambda path: path.stat().st_mtime):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        finished[path.parent.relative_to(run).as_posix()] = {
            "seconds": manifest["wall_seconds"],
            "metrics": manifest["metrics"],
        }
    unfinished = {}
    for path in run.glob("**/*.partial/metrics.jsonl"):
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # the last line may be half of one
        if whole:
            unfinished[path.parent.relative_to(run).as_posix().removesuffix(".partial")] = json.loads(
                whole.splitlines()[-1]
            )
    return {"run": str(run), "stages": finished, "unfinished": unfinished}


def peak(sizes: Sizes, _: Mapping[str, Any]) -> Iterator[Result]:
    import torch
    from torch.utils.benchmark import Timer

    from llamita.distributed.device import device
    from llamita.training.monitoring import peak_flops

    if (data_sheet := peak_flops()) is not None:
        yield {"data_sheet_tflops": data_sheet / 1e12}
    measured: dict[int, float] = {}
    for side in sizes.matrices:
        factors = torch.randn(2, side, side, device=device(), dtype=torch.bfloat16)
        timer = Timer("a @ b", globals={"a": factors[0], "b": factors[1]})
        seconds = timer.blocked_autorange(min_run_time=1).median
        measured[side] = 2 * side**3 / seconds / 1e12
        yield {"tflops_by_side": measured, "tflops": max(measured.values())}


def sample(sizes: Sizes, _: Mapping[str, Any]) -> Iterator[Result]:
    import torch
    from rollout import by_builtin, by_generate

    from llamita.distributed.device import device

    model = new_model(sizes.speed, device(), "bfloat16").eval()
    drawn = torch.randint(3, sizes.speed.vocabulary, (max(sizes.batches), sizes.prompt)).tolist()
    warm, ways = 4, {"generate": by_generate, "ours": by_builtin}
    for way in ways.values():
        way(model, 1, warm)(drawn[:1], 1, 0)
    for batch in sizes.batches:
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for round in range(sizes.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                tokens = sum(way(model, batch, sizes.new_tokens)(drawn[:batch], 1, round))
                speeds[name].append(tokens / (time.perf_counter() - started))
                yield {f"batch of {batch}, tokens/s": speeds}


def ppo(sizes: Sizes, before: Mapping[str, Any]) -> Iterator[Result]:
    from gpu_ppo import ppo

    yield from ppo(sizes, before)


PARTS: dict[str, tuple[Callable[[Sizes, Mapping[str, Any]], Iterator[Result]], int]] = {
    "losses": (losses, 100),
    "peak": (peak, 25),
    "pretrain": (pretrain, 110),
    "sft": (sft, 60),
    "memory": (memory, 75),
    "compile": (compile_, 90),
    "sample": (sample, 45),
    "ppo": (ppo, 60),
    "smoke": (smoke, 45),
}  # name: function, limit in seconds; 610 in all
