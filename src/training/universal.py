"""Going on with other ranks, or under another ZeRO stage: DeepSpeed's universal checkpoints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from transformers import Trainer

from ..console import say
from ..errors import ConfigError, LlamitaError
from .checkpoints import SEAL
from .distributed import barrier, gather_rows, is_main, world_size

ENDING = "_universal"
LATEST = "latest_universal"  # DeepSpeed's name; written last: the universal form beside it is whole


def zero_stage(deepspeed: str | None) -> int | None:
    """The ZeRO stage that a DeepSpeed file asks for, None without one."""
    if deepspeed is None:
        return None
    config = json.loads(Path(deepspeed).read_text(encoding="utf-8"))
    stage: int = config.get("zero_optimization", {}).get("stage", 0)
    return stage


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
    failures = gather_rows(_convert(checkpoint) if is_main() else [])
    if failures:
        raise LlamitaError(failures[0])
    barrier()
    trainer.accelerator.state.deepspeed_plugin.hf_ds_config.config["checkpoint"] = {"load_universal": True}


def _words(stage: int | None) -> str:
    return "without DeepSpeed" if stage is None else f"under ZeRO-{stage}"


def _convert(checkpoint: Path) -> list[str]:
    """Writes the universal form beside the ranks' own; returns what went wrong."""
    if (checkpoint / LATEST).is_file():
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
    (checkpoint / LATEST).write_text(whole.name, encoding="utf-8")
    return []
