"""What a rented GPU shows in eight minutes: the smoke pipeline, the matrix peak, pretraining, sampling.

    python benchmarks/gpu.py [--out gpu.json] [--small]

Each part runs in its own process, the most important one first, until it ends or its time is up. If a part
fails or is stopped, its results so far are kept and the next part starts. After each part the JSON file is
rewritten; the output of part NAME is beside it in `gpu.NAME.log`. wandb and the network are not used. The
package may be importable without being installed (`PYTHONPATH`). Without a GPU, or with `--small`, all sizes
are small: that tests this script and measures nothing.

The pipeline's folder is `runs/gpu-TIME` below the current folder; it is not deleted.

- `smoke`: `llamita run configs/smoke/pipeline.yaml`; seconds and metrics of each finished stage, and the last
  row of the metrics of the stage that was running.
- `peak`: TFLOP/s of square bf16 matrix products, and the data sheet's where it is known.
- `pretrain`: a Llama of 1.1 billion parameters in bf16 mixed precision, rows of 4,096 tokens, through the
  stage's own rows, trainer and kernels: tokens/s, MFU by the measured peak and by the data sheet's.
- `sample`: answers of the same model in bf16, tokens/s, alternating with `generate`.
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

from gpu_parts import FULL, PARTS, SMALL, Result
from machine import processor, versions

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


def run_part(command: list[str], limit: float, log: Path) -> Result:
    """What a part reported, `seconds`, and `error` where it failed or was cut."""
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
    """How a part ended, and which of its cases failed."""
    end, *_ = result.get("error", "done").splitlines()
    failed = [name for name, case in result.items() if isinstance(case, dict) and "error" in case]
    return f"{end}; failed: {', '.join(failed)}" if failed else str(end)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures a GPU in eight minutes; see the file's docstring.")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file of the results")
    parser.add_argument("--small", action="store_true", help="small sizes, as without a GPU")
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
    for name, (_, limit) in PARTS.items():
        command = [sys.executable, *sys.argv, "--part", name]
        result = run_part(command, limit, options.out.with_suffix(f".{name}.log"))
        report["parts"][name] = result
        write_json(options.out, report)
        print(f"{name}: {result['seconds']} seconds; {ending(result)}", flush=True)
    print(options.out)


if __name__ == "__main__":
    main()
