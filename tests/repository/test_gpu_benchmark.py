"""`benchmarks/gpu.py`: results of a part that fails or is cut are kept, and every part runs on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import pytest
from transformers.models.llama import modeling_llama

from llamita.memory.account import Account

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
WANDB = """\
run = None  # trl imports the module and reads this; nothing may use it otherwise

def __getattr__(name):
    raise (AttributeError if name.startswith("__") else RuntimeError)(name)
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


def test_all_parts_fit_into_ten_minutes(gpu: ModuleType) -> None:
    assert gpu.__doc__ is not None
    assert sum(limit for _, limit in gpu.PARTS.values()) == 610
    for name, (_, limit) in gpu.PARTS.items():
        assert f"- `{name}` ({limit})" in gpu.__doc__


def test_parts_are_chosen_by_name(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run_part(command: list[str], limit: float | None, log: Path) -> dict[str, float]:
        ran.append((command[-1], limit, log.name))
        return {"seconds": 1.0}

    monkeypatch.setattr(gpu, "run_part", run_part)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "x.json"), "--parts", "sft,peak"])
    gpu.main()
    assert ran == [("sft", 60, "x.sft.log"), ("peak", 25, "x.peak.log")]
    assert json.loads((tmp_path / "x.json").read_text())["parts"] == {
        "sft": {"seconds": 1.0},
        "peak": {"seconds": 1.0},
    }
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--parts", "sft,pek"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "pek: expected some of losses, peak" in capsys.readouterr().err


@pytest.mark.long
def test_every_part_runs_small_on_a_cpu_without_wandb(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text(WANDB)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", "found.json", "--small"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    parts = json.loads((tmp_path / "found.json").read_text())["parts"]
    assert list(parts) == ["losses", "peak", "pretrain", "sft", "memory", "compile", "sample", "ppo", "smoke"]
    assert not [part["error"] for part in parts.values() if "error" in part], done.stdout
    assert parts["smoke"]["stages"].keys() == {"world", "tokenizer", "pretrain"}
    assert parts["smoke"]["stages"]["pretrain"]["metrics"]["steps"] == 2
    assert parts["peak"]["tflops"] > 0
    assert {"generate", "ours"} == parts["sample"]["batch of 4, tokens/s"].keys()
    for name in ("pretrain", "sft", "memory", "compile"):
        _check_trained(parts[name])
    assert parts["compile"]["torch_compile"]["effects"]["graphs"] > 0
    assert parts["memory"]["ZeRO-3, checkpointing"]["effects"]["gradient_checkpointing"]
    losses = _without_liger(parts["losses"])
    for name, case in losses.items():
        if name != "cpu":
            assert len(case["losses"]) == 20
            assert case["losses"][0] > case["losses"][-1] + 0.1
            assert case["within_limit"]
    assert losses["sft, fp32"]["losses"] == losses["cpu"]["sft"]["losses"]
    assert losses["pretrain, packed, bf16"]["largest_relative_difference"] > 0


def _check_trained(part: dict[str, Any]) -> None:
    for name, case in _without_liger(part).items():
        assert case["tokens_per_second"] > 0, name
        assert case["mfu_of_measured_peak"] > 0
        assert case["accounted_gb"] > 0
        assert case["rows_measured"] == 2
        assert "no_effect" not in case, name
        kernel = "sdpa" if "sdpa" in name else "packed"
        assert case["effects"]["kernel"] == kernel
        assert case["parameters"] == 41248


def _without_liger(part: dict[str, Any]) -> dict[str, Any]:
    """The cases without Liger; its kernels need a GPU, so the others have failed."""
    cases = {name: case for name, case in part.items() if isinstance(case, dict)}
    for name in [name for name in cases if "Liger" in name]:
        assert "iger" in cases.pop(name)["error"]
    return cases


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
    idle = {"effects": {}, "no_effect": ["use_liger_kernel"]}
    assert gpu.ending({"sft": idle}) == "done; no effect: sft (use_liger_kernel)"


def test_the_summary_has_the_cases_with_figures(gpu: ModuleType) -> None:
    cases = {
        "default": {"tokens_per_second": 41234.5, "peak_gb": 42.51, "peak_over_accounted": 0.994},
        "Liger": {"tokens_per_second": 50000, "mfu_of_measured_peak": 0.5},
        "sdpa": {"error": "OutOfMemoryError"},
    }
    lines = gpu.summary("pretrain", cases | {"seconds": 3.0}).splitlines()
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "--" not in line] == [
        ["pretrain", "tokens/s", "MFU of the measured peak", "peak GB", "peak / accounted"],
        ["default", "41,234", "", "42.5", "0.99"],
        ["Liger", "50,000", "50.0%", "", ""],
    ]
    assert gpu.summary("peak", {"tflops": 5.0, "tflops_by_side": {"64": 5.0}}) == ""


def test_memory_is_the_peak_of_the_run_over_what_is_predicted(gpu: ModuleType) -> None:
    from gpu_training import memory

    predicted = Account({"weights": 3 * 10**9, "logits": 10**9}, {"optimizer": 2 * 10**9}, "loss")
    found = memory(predicted, 6e9, 1e9)
    assert found["accounted_by_part"] == {"weights": 3.0, "logits": 1.0}
    assert found["accounted_on_host"] == {"optimizer": 2.0}
    assert (found["accounted_gb"], found["peak_gb"], found["peak_over_accounted"]) == (4.0, 6.0, 1.25)
    assert "peak_gb" not in memory(predicted, None, 0)


def test_losses_are_compared_step_by_step(gpu: ModuleType) -> None:
    from gpu_losses import compare

    found = compare({"losses": [4.0, 2.02, 1.0]}, {"losses": [4.0, 2.0, 1.001]}, 0.02)
    assert found["largest_relative_difference"] == pytest.approx(0.01)
    assert found["in_step"] == 2
    assert found["within_limit"]
    assert not compare({"losses": [4.0, 2.1]}, {"losses": [4.0, 2.0]}, 0.02)["within_limit"]


def liger_stub(model: Any, config: Any) -> None:
    """Does to a model what Liger does: another function for rotations, other forward passes."""
    modeling_llama.apply_rotary_pos_emb = partial(modeling_llama.apply_rotary_pos_emb)
    for module in (model, model.model.norm):
        forward = type(module).forward

        def replaced(self: Any, *args: Any, _forward: Any = forward, **options: Any) -> Any:
            return _forward(self, *args, **options)

        replaced.__module__ = "liger_kernel.transformers"
        module.forward = MethodType(replaced, module)


@pytest.mark.parametrize("works", [True, False])
def test_options_without_effect_are_found_and_their_effects_undone(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    from gpu_sizes import SMALL
    from gpu_training import Case, measure

    monkeypatch.setattr("transformers.trainer.apply_liger_kernel", liger_stub if works else lambda *_: None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    rotations, environment = modeling_llama.apply_rotary_pos_emb, dict(os.environ)
    compiling = {"torch_compile": True, "torch_compile_backend": "eager"}
    section = {"use_liger_kernel": True, "bf16": True, "gradient_checkpointing": True} | compiling
    found = measure(SMALL.speed, Case("options", kernel="sdpa", trainer=section), tmp_path / "run", 1.0)
    assert "error" not in found
    assert modeling_llama.apply_rotary_pos_emb is rotations
    assert dict(os.environ) == environment
    assert found["effects"]["liger_modules"] == (2 if works else 0)
    assert found["effects"]["liger_loss"] == works
    assert found["effects"]["graphs"] > 0
    assert found.get("no_effect") == (None if works else ["use_liger_kernel"])
    assert found["first_step_seconds"] > 0
    assert found["tokens_per_second"] > 0
    assert found["accounted_by_part"].keys() >= {"weights", "gradients", "optimizer", "activations", "logits"}


def test_the_kernel_and_checkpointing_are_checked(gpu: ModuleType) -> None:
    from gpu_effects import without_effect

    wanted = {"gradient_checkpointing": True, "torch_compile": True}
    nothing = {"kernel": "sdpa", "gradient_checkpointing": False, "graphs": 0}
    assert without_effect(wanted, "packed", nothing) == [
        "gradient_checkpointing",
        "torch_compile",
        "attn_implementation=packed",
    ]
    assert without_effect({"gradient_checkpointing": False}, None, nothing) == []
