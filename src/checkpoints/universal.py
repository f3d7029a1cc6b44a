"""Going on with other ranks, or under another ZeRO stage: DeepSpeed's universal checkpoints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..artifact import write_json
from ..console import say
from ..deepspeed_file import zero_stage
from ..distributed.group import barrier, gather_rows
from ..errors import ConfigError, LlamitaError
from ..processes import is_main_process, world_size
from .sealed import SEAL

ENDING = "_universal"
WHOLE = "universal.json"  # written last: the universal form beside it is whole


def fit_to_ranks(checkpoint: Path, trainer: Trainer) -> None:
    """Makes a checkpoint readable for the ranks and the ZeRO stage of this start; every rank calls it.

    Raises ConfigError where one of them has the states of the optimizer in parts and the other has not.
    """
    seal: dict[str, Any] = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    before, now = seal["zero_stage"], zero_stage(trainer.args.deepspeed)
    if not before or not now:  # whole states: any number of ranks reads them
        if before != now:
            raise ConfigError(
                f"{checkpoint}: saved {_words(before)}, to go on {_words(now)}; expected the same, "
                "or (`deepspeed`) another of ZeRO-1, 2 and 3 in place of one of these"
            )
        return
    if (before, seal["world_size"]) == (now, world_size()):
        return
    say(
        f"{checkpoint}: saved by {seal['world_size']} ranks {_words(before)}, going on with {world_size()} "
        f"{_words(now)}"
    )
    failures = gather_rows(_convert(checkpoint) if is_main_process() else [])
    if failures:
        raise LlamitaError(failures[0])
    barrier()
    trainer.accelerator.state.deepspeed_plugin.hf_ds_config.config["checkpoint"] = {"load_universal": True}
    trainer.add_callback(Zero3OptimizerFix(trainer))


def check_same_ranks(checkpoint: Path, deepspeed: str | None) -> None:
    """For engines of our own, whose states stay in the parts that they were saved in.

    Raises ConfigError where this start has another ZeRO stage than the checkpoint, or, with one, other ranks.
    """
    seal: dict[str, Any] = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    before, now = seal["zero_stage"], zero_stage(deepspeed)
    if before != now or (before and seal["world_size"] != world_size()):
        raise ConfigError(
            f"{checkpoint}: saved by {seal['world_size']} ranks {_words(before)}, to go on with "
            f"{world_size()} {_words(now)}; expected the same ranks and `deepspeed`"
        )


def _words(stage: int | None) -> str:
    return "without DeepSpeed" if stage is None else f"under ZeRO-{stage}"


def _convert(checkpoint: Path) -> list[str]:
    """Writes the universal form beside the ranks' own; returns what went wrong."""
    if (checkpoint / WHOLE).is_file():
        return []
    parts = next(path for path in checkpoint.glob("global_step*") if not path.name.endswith(ENDING))
    whole = parts.with_name(parts.name + ENDING)
    shutil.rmtree(whole, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"),
        *("--input_folder", str(parts), "--output_folder", str(whole)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"{checkpoint}: DeepSpeed could not make it universal: {done.stderr[-2000:]}"]
    _suit_all_stages(whole)
    write_json(checkpoint / WHOLE, {"folder": whole.name})
    return []


def _suit_all_stages(whole: Path) -> None:
    """Adds what ZeRO-3 looks for in the universal form of ZeRO-1 and 2, and the other way round.

    The counters of the run have two names; the optimizer's step and settings stand in two places.
    """
    names = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
    for name, other in (names, names[::-1]):
        if not (whole / name).is_file():
            shutil.copyfile(whole / other, whole / name)
    path = whole / "zero" / "optimizer_state.pt"
    state = torch.load(path, weights_only=False)  # DeepSpeed's own classes; the checkpoint is ours
    parameters = [folder for folder in (whole / "zero").iterdir() if folder.is_dir()]
    inner = state.get("optimizer_state_dict")
    if inner is None:
        step = torch.load(parameters[0] / "step.pt", weights_only=True)
        state["optimizer_state_dict"] = {"state": {0: {"step": step}}, "param_groups": state["param_groups"]}
    else:
        for folder in parameters:
            for values in folder.glob("*.pt"):
                torch.save({"param": torch.load(values, weights_only=True)}, values)
            torch.save(inner["state"][0]["step"], folder / "step.pt")
        state["ds_version"] = torch.load(whole / names[0], weights_only=False)["ds_version"]
    torch.save(state, path)


class Zero3OptimizerFix(TrainerCallback):
    """What DeepSpeed's ZeRO-3 makes of the optimizer of a universal checkpoint, put right.

    It gives all parameters the weight decay of the first group, and one and the same counter of steps, which
    torch would then raise once for each group.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        optimizer = self._trainer.model_wrapped.optimizer.optimizer
        decayed, others = optimizer.param_groups
        decayed["weight_decay"], others["weight_decay"] = args.weight_decay, 0.0
        for kept in optimizer.state.values():
            kept["step"] = kept["step"].clone()
