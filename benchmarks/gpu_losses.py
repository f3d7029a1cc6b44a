"""Losses on the GPU beside those on the CPU, from the same weights and rows (part `losses` of `gpu.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_sizes import FULL, SMALL, Result, Sizes, Training

if TYPE_CHECKING:
    from gpu_training import Case

LIMITS = {"fp32": 1e-4, "bf16": 2e-2}  # largest relative difference of a loss


def losses(sizes: Sizes, before: Mapping[str, Any]) -> Iterator[Result]:
    """Yields the losses of each case, then their largest relative difference to the CPU's.

    A process without a GPU computes the CPU's meanwhile, so that everything in it runs as on a CPU.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    found: Result = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cpu.json"
        other = subprocess.Popen(
            [sys.executable, __file__, str(file), "small" if sizes is SMALL else "full"],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        try:
            for name, case, precision, _reference in _cases():
                found[name] = _losses(sizes.losses, case, Path(folder) / name, precision)
                yield {name: found[name]}
            if code := other.wait():
                raise RuntimeError(f"losses on the CPU: exit code {code}")
        finally:
            other.kill()
        expected = json.loads(file.read_text(encoding="utf-8"))
    yield {"cpu": expected}
    for name, _case, precision, reference in _cases():
        if "losses" in found[name] and "losses" in expected[reference]:
            yield {name: found[name] | compare(found[name], expected[reference], LIMITS[precision])}


def compare(found: Result, expected: Result, limit: float) -> Result:
    """The largest relative difference of two lists of losses, in which step, and whether it is too large."""
    pairs = list(zip(found["losses"], expected["losses"], strict=True))
    differences = [abs(one - other) / abs(other) for one, other in pairs]
    largest = max(differences)
    return {
        "largest_relative_difference": largest,
        "in_step": differences.index(largest) + 1,
        "limit": limit,
        "within_limit": largest <= limit,
    }


def _cases() -> list[tuple[str, Case, str, str]]:
    """Name, case, precision, and the CPU's case to compare with."""
    from gpu_training import Case

    return [
        (f"{case.name}, {precision}", case, precision, case.stage)
        for precision in LIMITS
        for case in (
            Case("pretrain, packed", kernel="packed"),
            Case("pretrain, sdpa", kernel="sdpa"),
            Case("sft", "sft"),
            Case("pretrain, Liger", trainer={"use_liger_kernel": True}),
        )
    ]


def _losses(sizes: Training, case: Case, out: Path, precision: str) -> Result:
    """The losses of all steps, or `error`."""
    from gpu_effects import clean, without_effect
    from gpu_training import train

    section = {"bf16": precision == "bf16", "learning_rate": 3e-3, "logging_steps": 1}
    case = replace(case, trainer=case.trainer | section, on_cpu=True)
    with clean():
        try:
            _trained, logged, found = train(sizes, case, out)
        except Exception as error:  # Liger is not installed, for example
            return {"error": f"{type(error).__name__}: {error}"[:2000]}
    result: Result = {"losses": [row["train/loss"] for row in logged], "kernel": found["kernel"]}
    if missing := without_effect(case.trainer, case.kernel, found):
        result["no_effect"] = missing
    return result


def main() -> None:
    """Writes the losses on the CPU to a file: of `pretrain` and `sft`, in fp32, with the default kernel."""
    from gpu_training import Case

    file, size = Path(sys.argv[1]), sys.argv[2]
    sizes = SMALL if size == "small" else FULL
    found = {}
    for stage in ("pretrain", "sft"):
        case = Case(f"{stage} on the CPU", stage)  # type: ignore[arg-type]  # one of the two
        found[stage] = _losses(sizes.losses, case, file.parent / f"cpu {stage}", "fp32")
    file.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
