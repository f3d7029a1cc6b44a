"""Resuming on another number of ranks or with another ZeRO stage: DeepSpeed's universal checkpoints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..artifact import write_json
from ..console import say
from ..deepspeed_file import zero_stage
from ..distributed.group import once, wait_until_visible
from ..errors import ConfigError, LlamitaError
from ..processes import advanced, world_size
from .sealed import SEAL

SUFFIX = "_universal"
STATE = "state"  # name of what an engine of PPO saves: the file state.pt, or DeepSpeed's folder
COMPLETE = "universal.json"  # written last, when the universal form beside it is complete


def fit_to_ranks(checkpoint: Path, trainer: Trainer) -> None:
    """Converts a checkpoint, if needed, to this run's number of ranks and ZeRO stage; every rank calls it.

    Raises ConfigError if only one of checkpoint and run shards the optimizer states.
    """
    seal: dict[str, Any] = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    saved = Saved(seal["world_size"], seal["zero_stage"])
    if not _must_convert(checkpoint, saved, zero_stage(trainer.args.deepspeed)):
        return
    sharded = next(path for path in checkpoint.glob("global_step*") if not path.name.endswith(SUFFIX))
    _converted(sharded)
    trainer.accelerator.state.deepspeed_plugin.hf_ds_config.config["checkpoint"] = {"load_universal": True}
    trainer.add_callback(Zero3OptimizerFix(trainer))


class Saved(NamedTuple):
    """What saved a checkpoint: number of ranks, and ZeRO stage (None: without DeepSpeed)."""

    ranks: int
    zero_stage: int | None


def fit_engine(folder: Path, saved: Saved, config: dict[str, Any] | None) -> None:
    """Converts what an engine saved in `folder / STATE`, if needed, and makes `config` load the result.

    `config`: settings of the engine that will load it; None: without DeepSpeed. Every rank calls it.
    Raises ConfigError as `fit_to_ranks`.
    """
    stage = None if config is None else config.get("zero_optimization", {}).get("stage", 0)
    if _must_convert(folder, saved, stage):
        assert config is not None
        _converted(folder / STATE)
        config["checkpoint"] = {"load_universal": True}


def _must_convert(checkpoint: Path, saved: Saved, now: int | None) -> bool:
    before = saved.zero_stage
    if not before or not now:  # states are not sharded: any number of ranks can load them
        if before != now:
            raise ConfigError(
                f"{checkpoint}: it was saved {_words(before)}, this run is {_words(now)}; set `deepspeed` as "
                "before (only ZeRO-1, 2 and 3 can replace each other)"
            )
        return False
    if (before, saved.ranks) == (now, world_size()):
        return False
    say(
        f"{checkpoint}: saved by {saved.ranks} ranks {_words(before)}, resuming on {world_size()} "
        f"{_words(now)}"
    )
    return True


def _converted(sharded: Path) -> None:
    once("converting the checkpoint", lambda: _convert(sharded))
    wait_until_visible(sharded.parent / COMPLETE)


def _words(stage: int | None) -> str:
    return "without DeepSpeed" if stage is None else f"with ZeRO-{stage}"


def _convert(sharded: Path) -> None:
    """Writes the universal form beside the sharded one. Raises LlamitaError if that fails."""
    if (sharded.parent / COMPLETE).is_file():
        return
    universal = sharded.with_name(sharded.name + SUFFIX)
    shutil.rmtree(universal, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"),
        *("--input_folder", str(sharded), "--output_folder", str(universal)),
    ]
    # in a file: its pipe would fill up while nobody reads it
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while process.poll() is None:
            advanced()  # hours for a large model; the watchdog would take them for a hang
            time.sleep(0.5)
        if process.returncode:
            output.seek(0)
            raise LlamitaError(f"{sharded}: DeepSpeed's conversion failed: {output.read()[-2000:]}")
    _fit_all_zero_stages(universal)
    write_json(sharded.parent / COMPLETE, {"folder": universal.name})


def _fit_all_zero_stages(universal: Path) -> None:
    """Adds what ZeRO-3 expects to the universal form of ZeRO-1 and 2, and the reverse.

    The file with the run's counters has two names; the optimizer's step and settings have two places.
    """
    names = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
    for name, other in (names, names[::-1]):
        if not (universal / name).is_file():
            shutil.copyfile(universal / other, universal / name)
    path = universal / "zero" / "optimizer_state.pt"
    state = torch.load(path, weights_only=False)  # contains DeepSpeed's classes; we wrote the checkpoint
    parameters = [folder for folder in (universal / "zero").iterdir() if folder.is_dir()]
    inner = state.get("optimizer_state_dict")
    if inner is None:
        # the folders of buffers, such as the critic's scale, have no steps
        steps = (folder / "step.pt" for folder in parameters if (folder / "step.pt").is_file())
        step = torch.load(next(steps), weights_only=True)
        state["optimizer_state_dict"] = {"state": {0: {"step": step}}, "param_groups": state["param_groups"]}
    else:
        for folder in parameters:
            for values in folder.glob("*.pt"):
                torch.save({"param": torch.load(values, weights_only=True)}, values)
            torch.save(inner["state"][0]["step"], folder / "step.pt")
        state["ds_version"] = torch.load(universal / names[0], weights_only=False)["ds_version"]
    torch.save(state, path)


class Zero3OptimizerFix(TrainerCallback):
    """Calls `fix_zero3_optimizer` before the first step."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        fix_zero3_optimizer(self._trainer.model_wrapped.optimizer.optimizer, (args.weight_decay, 0.0))


def fix_zero3_optimizer(optimizer: torch.optim.Optimizer, decays: tuple[float, float]) -> None:
    """Works around two bugs of DeepSpeed's ZeRO-3 when it loads the optimizer of a universal checkpoint.

    All parameters get the weight decay of the first group, and share one step counter, which torch would then
    increment once per group. `decays`: weight decay of the matrices, and of norms and biases.
    """
    # DeepSpeed drops the second group if it is empty, as with LoRA
    for group, decay in zip(optimizer.param_groups, decays, strict=False):
        group["weight_decay"] = decay
    for values in optimizer.state.values():
        values["step"] = values["step"].clone()
