"""Logs the metrics of a stage to its `metrics.jsonl` and to Weights & Biases.

Without a key wandb runs offline, in the run's folder. It never stops or slows a stage: its first failure is
reported and turns it off; metrics are still written to `metrics.jsonl`. docs/metrics.md lists all metrics.
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
    """Logs the metrics of one stage; on ranks other than the main one it does nothing.

    Args:
        out: the stage's working folder, where rows are appended to `metrics.jsonl`; wandb's files are written
            below the run's folder.
        settings: the stage's settings, serializable as JSON: the config of the wandb run.
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
            self._turn_wandb_off(error)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Appends the row `{"step": step, **metrics}`; NaN and infinite values become null in the file."""
        if self._file is None:
            return
        row = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        append_row(self._file, {"step": step, **row})
        self._file.flush()
        if self._wandb is not None:
            try:
                # the step is logged as a metric: wandb's own can't decrease, ours does when a run resumes
                self._wandb.log({"step": step, **metrics})
            except Exception as error:
                self._turn_wandb_off(error)

    def rewind(self, step: int) -> None:
        """Removes the rows after `step` from the file: a run that resumes there logs them again."""
        if self._file is None:
            return
        self._file.close()
        path = Path(self._file.name)
        rows = read_rows(path, may_end_torn=True)
        write_rows(path, (row for row in rows if row["step"] <= step))
        self._file = path.open("a", encoding="utf-8")

    def finish(self) -> None:
        """Closes the file and finishes the wandb run; later calls of `log` do nothing."""
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

    def _turn_wandb_off(self, error: Exception) -> None:
        self._wandb = None
        say(f"wandb: turned off ({type(error).__name__}: {error}); all metrics are in metrics.jsonl")


def _start_wandb(out: Path, settings: Mapping[str, Any]) -> Any:
    mode: Any = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    if mode == "disabled":
        return None
    import wandb

    # wandb's library-wide messages (termlog, termwarn) follow the settings of `setup`, not those of `init`
    wandb.setup(wandb.Settings(silent=True))
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
    run = wandb.init(
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
    run.define_metric("*", step_metric="step")  # the x axis of every chart
    if mode == "offline":
        folder = os.path.relpath(Path(run.dir).parent)
        say(f"wandb: offline run in {folder} (upload it with `wandb sync`)")
    return run


def _run_id(out: Path) -> str:
    """wandb's id of the stage, stored until the stage is finished: a resumed stage stays one wandb run."""
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
