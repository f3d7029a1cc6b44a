"""Tracking: the same numbers go to `metrics.jsonl` beside the model and to Weights & Biases.

wandb runs offline where there is no key, in the run's own folder, and never stops or slows a stage: what
fails there is said once and tracking goes on in `metrics.jsonl` alone.
"""

from __future__ import annotations

import json
import math
import netrc
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..artifact import RESUME, run_folder, run_name, stage_name, write_json
from ..console import say
from ..jsonl import append_row, read_rows, write_rows
from ..processes import is_main_process

PROJECT = "llamita"


class Tracker:
    """Writes metrics of one stage; silent on every rank but the main one.

    Args:
        out: the stage's working folder; `metrics.jsonl` grows there, wandb's files below the run's folder.
        settings: the stage's settings, JSON-able, kept as the wandb run's config.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self._file = None
        self._wandb: Any = None
        if not is_main_process():
            return
        out.mkdir(parents=True, exist_ok=True)
        self._file = (out / "metrics.jsonl").open("a", encoding="utf-8")
        try:
            self._wandb = _start_wandb(out, settings)
        except Exception as error:
            self._give_up(error)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds one row `{"step": step, **metrics}`; numbers only, NaN and infinities become null."""
        if self._file is None:
            return
        row = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        append_row(self._file, {"step": step, **row})
        self._file.flush()
        if self._wandb is not None:
            try:
                # our step goes in as a metric: wandb's own may not go back when a run resumes earlier
                self._wandb.log({"step": step, **metrics})
            except Exception as error:
                self._give_up(error)

    def rewind(self, step: int) -> None:
        """Removes the rows after `step` from the file: a run that resumes there will write them again."""
        if self._file is None:
            return
        self._file.close()
        path = Path(self._file.name)
        rows = read_rows(path, may_end_torn=True)
        write_rows(path, (row for row in rows if row["step"] <= step))
        self._file = path.open("a", encoding="utf-8")

    def finish(self) -> None:
        """Closes the file and the wandb run; later calls of `log` do nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._wandb is not None:
            with suppress(Exception):
                self._wandb.finish()
            self._wandb = None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def _give_up(self, error: Exception) -> None:
        self._wandb = None
        say(f"wandb: off ({type(error).__name__}: {error}); the same numbers are in metrics.jsonl")


def _start_wandb(out: Path, settings: Mapping[str, Any]) -> Any:
    mode: Any = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    if mode == "disabled":
        return None
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=20,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    return wandb.init(
        id=_run_id(out),
        resume="allow",
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        group=run_name(out),
        name=stage_name(out),
        mode=mode,
        dir=str(run_folder(out)),
        config=dict(settings),
        reinit="finish_previous",
        settings=quiet,
    )


def _run_id(out: Path) -> str:
    """The same for as long as a stage is unfinished: a run that resumes stays one run."""
    path = out / RESUME / "wandb.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    run_id = secrets.token_hex(8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"id": run_id})
    return run_id


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].strip("/")
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
