"""`benchmarks/gpu.py`: results of a part that fails or is cut are kept, and every part runs on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from ..helpers.repository import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu.py"
GRANDCHILD = """\
import subprocess, sys, time
print('RESULT {"tflops": 1.0}', flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print('RESULT {"tflops": 2.0, "child": %d}' % child.pid)
print('RESULT {"tflo', flush=True)
time.sleep(60)
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    spec.loader.exec_module(module)
    return module


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_part_that_is_cut_leaves_its_results_and_no_process(gpu: ModuleType, tmp_path: Path) -> None:
    result = gpu.run_part([sys.executable, "-c", GRANDCHILD], 2, tmp_path / "log")
    assert result["tflops"] == 2.0
    assert result["error"] == "cut after 2 seconds"
    for _ in range(100):
        if not alive(result["child"]):
            return
        time.sleep(0.05)
    pytest.fail("what the part has started still runs")


def test_a_part_that_fails_leaves_its_results_and_the_reason(gpu: ModuleType, tmp_path: Path) -> None:
    script = """print('RESULT {"loss": NaN}', flush=True); raise MemoryError("too large")"""
    result = gpu.run_part([sys.executable, "-c", script], 60, tmp_path / "log")
    assert result["loss"] != result["loss"]
    assert result["error"].startswith("exit code 1\n")
    assert result["error"].endswith("MemoryError: too large")


def test_an_unfinished_stage_is_read_from_its_metrics(gpu: ModuleType, tmp_path: Path) -> None:
    for folder in ("world", "pretrain.partial"):
        (tmp_path / folder).mkdir()
    (tmp_path / "world" / "manifest.json").write_text('{"wall_seconds": 3.5, "metrics": {"rows": 7}}')
    (tmp_path / "pretrain.partial" / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert sys.modules["gpu_parts"]._stages(tmp_path) == {
        "run": str(tmp_path),
        "stages": {"world": {"seconds": 3.5, "metrics": {"rows": 7}}},
        "unfinished": {"pretrain": {"step": 2}},
    }


def test_all_parts_fit_into_eight_minutes(gpu: ModuleType) -> None:
    assert sum(limit for _, limit in gpu.PARTS.values()) <= 480


@pytest.mark.long
def test_every_part_runs_small_on_a_cpu_without_wandb(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("raise ImportError('not installed')")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", "found.json", "--small"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    parts = json.loads((tmp_path / "found.json").read_text())["parts"]
    assert not [part["error"] for part in parts.values() if "error" in part], done.stdout
    assert parts["smoke"]["stages"].keys() == {"world", "tokenizer", "pretrain"}
    assert parts["smoke"]["stages"]["pretrain"]["metrics"]["steps"] == 2
    assert parts["peak"]["tflops"] > 0
    for name in ("one document a row", "documents of 700 tokens"):
        assert parts["pretrain"][name]["tokens_per_second"] > 0
        assert parts["pretrain"][name]["mfu_of_measured_peak"] > 0
    assert {"generate", "ours"} == parts["sample"]["batch of 4, tokens/s"].keys()


def test_a_part_says_which_of_its_cases_failed(gpu: ModuleType) -> None:
    assert gpu.ending({"seconds": 1.0, "packed": {"tokens_per_second": 5.0}}) == "done"
    failed: dict[str, object] = {
        "flash_attention_2": {"error": "ImportError: flash_attn"},
        "packed": {"mfu": 0.4},
    }
    assert gpu.ending(failed) == "done; failed: flash_attention_2"
    assert (
        gpu.ending(failed | {"error": "exit code 1\nlast line"}) == "exit code 1; failed: flash_attention_2"
    )
