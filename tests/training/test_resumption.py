"""A run that was stopped or killed resumes with the same result as an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments

from llamita import console
from llamita.artifact import RESUME
from llamita.checkpoints.sealed import Checkpoints
from llamita.errors import ConfigError, Interrupted
from llamita.training.arguments import training_arguments
from llamita.training.loop import run_trainer
from llamita.training.ordered_trainer import OrderedTrainer
from llamita.training.resumption import check_rows_per_step
from llamita.training.settings import NO_EFFECT
from llamita.training.tracking import Tracker

pytestmark = pytest.mark.usefixtures("without_wandb")

ROWS = [
    {"input_ids": ids, "labels": ids}
    for ids in torch.randint(3, 30, (10, 16), generator=torch.Generator().manual_seed(0))
]
SECTION = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,  # ten rows: the second step of each epoch is a short one
    "learning_rate": 1e-2,
    "logging_steps": 3,
    "save_steps": 2,
    "max_steps": 11,
}
CLOCKS = ("train_seconds", "tokens_per_second", "peak_memory_gb")


class Killed(Exception):
    pass


class At(TrainerCallback):
    """Calls a function after a step, before its checkpoint is saved."""

    def __init__(self, step: int, act: Any) -> None:
        self._step, self._act = step, act

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._step:
            self._act()


def kill() -> None:
    raise Killed


def train(out: Path, callback: TrainerCallback | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of model and optimizer at the end, and the metrics."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=30, pad_token_id=0, **shape))
    arguments = training_arguments(TrainingArguments, SECTION, out, seed=0)
    with Tracker(out, {}) as tracker:
        trainer = OrderedTrainer(model=model, args=arguments, train_dataset=ROWS, description="tiny")
        if callback is not None:
            trainer.add_callback(callback)
        metrics = run_trainer(trainer, tracker, items_per_row=16, unit="tokens")
    assert trainer.optimizer is not None
    state = {"model": model.state_dict(), "optimizer": trainer.optimizer.state_dict()["state"]}
    return state, {name: value for name, value in metrics.items() if name not in CLOCKS}


def logged(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith(CLOCKS)} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        return out, *train(out)


def assert_same(out: Path, found: Any, undisturbed: Any) -> None:
    folder, state, metrics = undisturbed
    torch.testing.assert_close(found[0], state, atol=0, rtol=0)
    assert found[1] == metrics
    assert logged(out) == logged(folder)


@pytest.mark.parametrize("steps", [[1], [2], [5], [3, 7, 10], [10]])
def test_a_killed_run_ends_like_an_undisturbed_one(
    tmp_path: Path, undisturbed: Any, steps: list[int]
) -> None:
    """Killed before checkpoints are saved, also within an epoch and between two logged rows."""
    for step in steps:
        with pytest.raises(Killed):
            train(tmp_path, At(step, kill))
    assert_same(tmp_path, train(tmp_path), undisturbed)


def test_progress_continues_where_the_run_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.0)
    with pytest.raises(Killed):
        train(tmp_path, At(5, kill))
    capsys.readouterr()
    train(tmp_path)
    shares = re.findall(r"^tiny: (\S+) steps, ", capsys.readouterr().out, re.MULTILINE)
    assert shares == [f"{step}/11" for step in range(5, 12)]


def test_progress_ends_where_the_run_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.0)
    with pytest.raises(Interrupted):
        train(tmp_path, At(4, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert re.findall(r"^tiny: (\S+) steps, ", capsys.readouterr().out, re.MULTILINE)[-1] == "5/11"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_after_the_step_and_the_run_resumes(
    tmp_path: Path, undisturbed: Any, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"stopped after step 5; run the same command to resume$") as caught:
        train(tmp_path, At(4, lambda: os.kill(os.getpid(), number)))
    assert caught.value.exit_code == 75
    assert signal.getsignal(number) == before
    assert (tmp_path / RESUME / "checkpoint-5").is_dir()
    assert_same(tmp_path, train(tmp_path), undisturbed)


def test_a_signal_whose_checkpoint_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoints, "_lack_of_space", lambda _: "10 bytes are free")
    with pytest.raises(Interrupted, match="from an earlier step: this one was not saved"):
        train(tmp_path, At(4, lambda: os.kill(os.getpid(), signal.SIGINT)))


def test_a_run_killed_after_its_last_step_ends_the_same_way_again(tmp_path: Path, undisturbed: Any) -> None:
    """Training had finished, but the stage was not yet published."""
    train(tmp_path)
    assert_same(tmp_path, train(tmp_path), undisturbed)
    assert (tmp_path / RESUME / "checkpoint-10").is_dir()


def test_another_global_batch_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        train(tmp_path, At(5, kill))
    three: Any = SimpleNamespace(per_device_train_batch_size=1, gradient_accumulation_steps=1, world_size=3)
    with pytest.raises(ConfigError, match="use a number of ranks that divides 8"):
        check_rows_per_step(tmp_path / RESUME / "checkpoint-4", three)
    for rows, words in ((2, "set trainer.gradient_accumulation_steps to 4"), (3, "to a divisor of 8$")):
        monkeypatch.setitem(SECTION, "per_device_train_batch_size", rows)
        with pytest.raises(ConfigError, match=f"checkpoint-4: a step had 8 rows, .* {words}"):
            train(tmp_path)


def test_settings_that_change_no_result_may_change_when_resuming(
    tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        train(tmp_path, At(5, kill))
    others = {"logging_steps": 1, "save_steps": 3, "save_total_limit": 1, "dataloader_num_workers": 1}
    others |= {"gradient_checkpointing": True, "logging_strategy": "steps", "eval_steps": 2, "debug": ""}
    for name, value in others.items():
        assert f"trainer.{name}" in NO_EFFECT
        monkeypatch.setitem(SECTION, name, value)
    saved: list[Path] = []
    state, _ = train(tmp_path, At(10, lambda: saved.extend((tmp_path / RESUME).glob("checkpoint-*"))))
    torch.testing.assert_close(state, undisturbed[1], atol=0, rtol=0)
    steps = [row["step"] for row in logged(tmp_path)]
    assert steps == [1, 3, *range(5, 12)], "the new logging_steps hold from step 4 on"
    assert [folder.name for folder in saved] == ["checkpoint-9"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"learning_rate": -1.0}, "trainer: Invalid learning rate"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"a": 1}}, "trainer: .*argument 'a'"),
    ],
)
def test_errors_of_optimizer_and_schedule_name_the_trainer_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], problem: str
) -> None:
    for name, value in change.items():
        monkeypatch.setitem(SECTION, name, value)
    with pytest.raises(ConfigError, match=problem):
        train(tmp_path)


def test_micro_batches_may_change_when_resuming(
    tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        train(tmp_path, At(5, kill))
    monkeypatch.setitem(SECTION, "per_device_train_batch_size", 2)
    monkeypatch.setitem(SECTION, "gradient_accumulation_steps", 4)
    state, _ = train(tmp_path)
    torch.testing.assert_close(state["model"], undisturbed[1]["model"], atol=1e-5, rtol=1e-4)
