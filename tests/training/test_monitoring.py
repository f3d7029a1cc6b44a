"""Utilization, and loss spikes: the run rolls back, skips the bad batches and finishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from llamita.artifact import RESUME
from llamita.errors import RolledBack
from llamita.training import monitoring, spikes
from llamita.training.arguments import training_arguments
from llamita.training.loop import run_trainer
from llamita.training.monitoring import MonitorOptions, utilization
from llamita.training.order import SeededOrder
from llamita.training.ordered_trainer import OrderedTrainer
from llamita.training.spikes import SKIPPED
from llamita.training.tracking import Tracker

pytestmark = pytest.mark.usefixtures("without_wandb")

SPIKES = MonitorOptions(loss_spike=3.0)
POISON = 29
ROWS = torch.randint(3, POISON, (40, 16), generator=torch.Generator().manual_seed(0))
BAD = SeededOrder(40, seed=0)[27]  # the row of step 28, one row a step
ROWS[BAD, 0] = POISON


class SpikingModel(LlamaForCausalLM):
    """Returns a wrong loss for the bad row, and records the rows that it was trained on."""

    factor = 100.0
    seen: list[int]

    def forward(self, input_ids: torch.Tensor, **options: Any) -> Any:
        output = super().forward(input_ids=input_ids, **options)
        self.seen.append(next(i for i, row in enumerate(ROWS) if torch.equal(row, input_ids[0])))
        if (input_ids == POISON).any():
            output.loss = output.loss * self.factor
        return output


def train(out: Path, factor: float = 100.0, monitor: MonitorOptions = SPIKES) -> tuple[list[int], Any]:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = SpikingModel(LlamaConfig(vocab_size=30, pad_token_id=0, **shape))
    model.factor, model.seen = factor, []
    section = {"per_device_train_batch_size": 1, "max_steps": 38, "save_steps": 10, "logging_steps": 4}
    arguments = training_arguments(TrainingArguments, section, out, seed=0)
    rows = [{"input_ids": row, "labels": row} for row in ROWS]
    with Tracker(out, {}) as tracker:
        trainer = OrderedTrainer(
            model=model, args=arguments, train_dataset=rows, description="tiny", monitor=monitor
        )
        try:
            metrics = run_trainer(trainer, tracker, items_per_row=16, unit="tokens")
        except RolledBack as error:
            return model.seen, error
    return model.seen, metrics


@pytest.mark.parametrize("factor", [100.0, float("nan")])
def test_after_a_spike_the_run_rolls_back_and_skips_the_batches(tmp_path: Path, factor: float) -> None:
    order = list(SeededOrder(40, seed=0))
    seen, error = train(tmp_path, factor)
    assert isinstance(error, RolledBack)
    assert "tiny: the loss of step 28 is" in str(error)
    assert str(error).endswith("checkpoint-20 and skipping the batches of 8 steps")
    assert seen == order[:29]  # a loss is checked after the next step
    (entry,) = json.loads((tmp_path / RESUME / SKIPPED).read_text())
    assert (entry["after_step"], entry["steps"]) == (20, 8)
    seen, metrics = train(tmp_path, factor)
    assert seen == [*order[28:], *order[:6]]  # 18 steps more; at the epoch's end its first rows again
    assert metrics["steps"] == 38
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, *range(4, 37, 4)]
    assert all(row["train/loss"] < 10 for row in rows)


def test_without_loss_spike_a_high_loss_is_accepted(tmp_path: Path) -> None:
    _, metrics = train(tmp_path, monitor=MonitorOptions())
    assert metrics["steps"] == 38


def test_a_high_loss_at_the_beginning_is_no_spike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spikes, "MIN_LOSSES", 28)
    _, metrics = train(tmp_path)
    assert metrics["steps"] == 38


def test_a_spike_is_found_before_its_checkpoint_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = ROWS.clone()
    bad[BAD, 0], bad[SeededOrder(40, seed=0)[29], 0] = 5, POISON  # step 30, which is saved
    monkeypatch.setattr(f"{__name__}.ROWS", bad)
    _, error = train(tmp_path)
    assert "the loss of step 30 is" in str(error)
    assert "checkpoint-20 and skipping the batches of 10 steps" in str(error)
    assert not (tmp_path / RESUME / "checkpoint-30").exists()


def test_utilization(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monitor = MonitorOptions(flops_per_item=2e6)
    monkeypatch.setattr(monitoring, "peak_flops", lambda: None)
    assert utilization(MonitorOptions(), 5.0) == {}
    assert utilization(monitor, 5e5) == {"tflops_per_second": 1.0}
    monkeypatch.setattr(monitoring, "peak_flops", lambda: 4e12)
    assert utilization(monitor, 5e5) == {"tflops_per_second": 1.0, "mfu": 0.25}
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert utilization(monitor, 5e5)["mfu"] == 0.125
    monkeypatch.delenv("WORLD_SIZE")
    train(tmp_path, 1.0, monitor)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["train/mfu"] == pytest.approx(row["train/tokens_per_second"] * 2e6 / 4e12)


def test_devices_are_recognized_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.cuda.is_available() or monitoring.peak_flops() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, peak in (
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("Quadro", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert monitoring.peak_flops() == peak
