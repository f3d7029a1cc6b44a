"""What a rented GPU shows in ten minutes: losses, speed and memory of training, sampling and PPO.

    python benchmarks/gpu.py [--out gpu.json] [--parts losses,peak,...] [--small]

Each part runs in its own process, the most important one first or in the order of `--parts`, until it ends or
its time is up; the limits, below in seconds, add up to 610. If a part or one of its cases fails, or a part
is stopped, its results so far are kept and the next one starts. After each part the JSON file is rewritten;
the output of part NAME is beside it in `gpu.NAME.log`. wandb and the network are not used. The package may be
importable without being installed (`PYTHONPATH`). Without a GPU, or with `--small`, all sizes are small: that
tests this script and measures nothing. With `--small` there are no limits.

- `losses` (100): 20 steps of a Llama of 10 million parameters on the CPU and on the GPU, from the same
  weights and rows; the largest relative difference of a loss, with a limit of 1e-4 in fp32 (without TF32) and
  of 2% in bf16.
- `peak` (25): TFLOP/s of square bf16 matrix products, and the data sheet's where it is known. The parts that
  train need it for `mfu_of_measured_peak`.
- `pretrain` (110): a Llama of 1.1 billion parameters in bf16 mixed precision, rows of 4,096 tokens with
  documents of 700 tokens on average, through the stage's own settings, rows, trainer and kernels: tokens/s
  and MFU with each kernel and option.
- `sft` (60): the same model on packed dialogues, with the stage's defaults, Liger, and without checkpointing.
- `memory` (75): the same model under ZeRO-1, 2 and 3 with one rank.
- `compile` (90): `pretrain` with `torch_compile`, whose first step takes up to a minute.
- `sample` (45): answers of the same model in bf16, tokens/s, alternating with `generate`.
- `ppo` (60): an iteration of PPO with the same model, critic, reference and two reward models of its size, in
  bf16 over fp32 weights: seconds and peak memory of each phase, beside what `llamita.memory` predicts.
- `smoke` (45): `llamita run configs/smoke/pipeline.yaml`; seconds and metrics of each finished stage, and the
  last row of the metrics of the stage that was running. Its folder `runs/gpu-TIME` below the current folder
  is not deleted.

A case that trains also has: `effects`, which kernels and options the model had after its first step;
`no_effect`, the options of the case that left no trace; `peak_gb`, the peak of torch's allocator, beside
`accounted_gb`, what `llamita.memory` predicts (for plain kernels: it knows neither Liger nor `torch_compile`
nor the mask of `sdpa`), by part and in sum.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from gpu_parts import PARTS
from gpu_sizes import FULL, SMALL, Result
from machine import processor, table, versions

from llamita.artifact import write_json

RESULT = "RESULT "
ENVIRONMENT = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def measure(name: str, small: bool, before: Mapping[str, Any]) -> None:
    """Runs one part, in a process of its own, and prints a line for each result that it yields."""
    import torch

    cuda = torch.cuda.is_available()
    small = small or not cuda
    _print_result({"device": torch.cuda.get_device_name() if cuda else "cpu", "small": small})
    for result in PARTS[name][0](SMALL if small else FULL, before):
        _print_result(result)


def _print_result(result: Result) -> None:
    print("\n" + RESULT + json.dumps(result), flush=True)


def run_part(command: list[str], limit: float | None, log: Path) -> Result:
    """What a part reported, `seconds`, and `error` where it failed or was cut after `limit` seconds."""
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"CUDA_VISIBLE_DEVICES": "0"} | os.environ | ENVIRONMENT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
            error = f"exit code {code}" if code else None
        except subprocess.TimeoutExpired:
            error = f"cut after {limit:.0f} seconds"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever it has started, too
            process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    result: Result = {"seconds": round(time.monotonic() - started, 1)}
    for line in lines:
        with suppress(ValueError):  # half a line, where it was cut
            result |= json.loads(line.removeprefix(RESULT)) if line.startswith(RESULT) else {}
    if error is not None:
        last = [line for line in lines if line.strip() and not line.startswith(RESULT)][-5:]
        result["error"] = "\n".join([error, *last])
    return result


def ending(result: Result) -> str:
    """How a part ended, which of its cases failed, and which options had no effect."""
    end, *_ = result.get("error", "done").splitlines()
    cases = {name: case for name, case in result.items() if isinstance(case, dict)}
    failed = [name for name, case in cases.items() if "error" in case]
    without = [
        f"{name} ({', '.join(case['no_effect'])})" for name, case in cases.items() if "no_effect" in case
    ]
    return "; ".join(
        [
            end,
            *([f"failed: {', '.join(failed)}"] if failed else []),
            *([f"no effect: {', '.join(without)}"] if without else []),
        ]
    )


COLUMNS = {
    "tokens/s": ("tokens_per_second", "{:,.0f}"),
    "MFU of the measured peak": ("mfu_of_measured_peak", "{:.1%}"),
    "of the data sheet's": ("mfu", "{:.1%}"),
    "seconds": ("phase_seconds", "{:.2f}"),
    "peak GB": ("peak_gb", "{:.1f}"),
    "peak / accounted": ("peak_over_accounted", "{:.2f}"),
    "largest relative difference": ("largest_relative_difference", "{:.1e}"),
}


def summary(name: str, result: Result) -> str:
    """A table of the cases of a part that have figures; empty if there are none."""
    keys = {key for key, _ in COLUMNS.values()}
    cases = {case: found for case, found in result.items() if isinstance(found, dict) and keys & found.keys()}
    heads = [head for head, (key, _) in COLUMNS.items() if any(key in found for found in cases.values())]
    cells = [[case, *(_cell(found, *COLUMNS[head]) for head in heads)] for case, found in cases.items()]
    return table([name, *heads], cells) + "\n" if cells else ""


def _cell(case: Result, key: str, form: str) -> str:
    return form.format(case[key]) if key in case else ""


def chosen_parts(names: str) -> list[str]:
    """The parts named in a list with commas. Raises ArgumentTypeError for an unknown one."""
    chosen = names.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(PARTS)}")
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measures a GPU in at most 610 seconds; see the file's docstring."
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file of the results")
    limits = ", ".join(f"{name} ({limit} seconds at most)" for name, (_, limit) in PARTS.items())
    parser.add_argument(
        "--parts",
        type=chosen_parts,
        default=list(PARTS),
        metavar="NAME,...",
        help=f"parts to run, in this order; default: {limits}",
    )
    parser.add_argument("--small", action="store_true", help="small sizes, as without a GPU, and no limits")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        before = json.loads(options.out.read_text(encoding="utf-8"))["parts"]
        measure(options.part, options.small, before)
        return
    report: Result = {
        "command": sys.argv,
        "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "processor": processor(),
        "versions": versions(),
        "parts": {},
    }
    write_json(options.out, report)
    for name in options.parts:
        limit = None if options.small else PARTS[name][1]
        command = [sys.executable, *sys.argv, "--part", name]
        result = run_part(command, limit, options.out.with_suffix(f".{name}.log"))
        report["parts"][name] = result
        write_json(options.out, report)
        print(f"{name}: {result['seconds']} seconds; {ending(result)}\n{summary(name, result)}", flush=True)
    print(options.out)


if __name__ == "__main__":
    main()
