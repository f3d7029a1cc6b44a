"""The training run that the Trainer-based stages share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from llamita.errors import LlamitaError, RolledBack
from llamita.training.arguments import training_arguments
from llamita.training.loop import run_trainer
from llamita.training.ordered_trainer import OrderedTrainer
from llamita.training.spikes import MAX_ROLLBACKS
from llamita.training.tracking import Tracker

pytestmark = pytest.mark.usefixtures("without_wandb")

ROWS = [
    {"input_ids": ids, "labels": ids}
    for ids in torch.randint(3, 30, (12, 16), generator=torch.Generator().manual_seed(0))
]


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=30, pad_token_id=0, **shape))


def train(out: Path, rows: list[Any] = ROWS, **section: Any) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    model = tiny()
    section = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, **section}
    arguments = training_arguments(TrainingArguments, section, out, seed=0)
    with Tracker(out, {}) as tracker:
        trainer = OrderedTrainer(model=model, args=arguments, train_dataset=rows, description="tiny")
        return model, run_trainer(trainer, tracker, items_per_row=16, unit="tokens")


def test_rows_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, metrics = train(tmp_path, num_train_epochs=2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    names = ("loss", "grad_norm", "learning_rate", "epoch", "tokens", "tokens_per_second", "peak_memory_gb")
    assert rows[0].keys() == {"step", *(f"train/{name}" for name in names)}
    assert [row["train/tokens"] for row in rows] == [pytest.approx(64 * step) for step in range(1, 7)]
    assert metrics["steps"] == 6
    assert metrics["final_loss"] == rows[-1]["train/loss"]
    assert metrics["train_loss"] == pytest.approx(sum(row["train/loss"] for row in rows) / 6)
    assert metrics["tokens_per_second"] == pytest.approx(6 * 4 * 16 / metrics["train_seconds"])
    assert model.config.use_cache  # switched off for the training only
    assert not list(tmp_path.glob("checkpoint*"))
    assert "{'loss'" not in capsys.readouterr().out  # Trainer's own prints


def test_same_seed_same_weights_and_accumulation_changes_nothing(tmp_path: Path):
    once, _ = train(tmp_path / "once")
    again, _ = train(tmp_path / "again")
    for a, b in zip(once.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    accumulated, _ = train(tmp_path / "parts", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    for a, b in zip(once.parameters(), accumulated.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_loss_is_the_mean_over_the_tokens_of_the_global_batch(tmp_path: Path):
    labels = [
        torch.where(torch.arange(16) < 2 + index, row["labels"], -100) for index, row in enumerate(ROWS)
    ]
    masked = [{"input_ids": r["input_ids"], "labels": one} for r, one in zip(ROWS, labels, strict=True)]
    train(tmp_path, masked, per_device_train_batch_size=3, gradient_accumulation_steps=4)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    ids = torch.stack([row["input_ids"] for row in ROWS])
    with torch.no_grad():
        log_probs = tiny()(input_ids=ids).logits[:, :-1].log_softmax(-1)
    costs = [
        -float(log_probs[row, at, label])
        for row, row_labels in enumerate(labels)
        for at, label in enumerate(row_labels[1:])
        if label != -100
    ]
    assert first["train/loss"] == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_a_loss_that_is_nan_again_and_again_is_an_error(tmp_path: Path):
    """After the allowed number of rollbacks the run stops and names its last good checkpoint."""
    wild = {"learning_rate": 1e30, "max_grad_norm": 1e30, "save_steps": 1, "num_train_epochs": 2}
    for _ in range(MAX_ROLLBACKS):
        with pytest.raises(RolledBack, match="is NaN or infinite; rolling back to"):
            train(tmp_path, **wild)
    with pytest.raises(
        LlamitaError, match=r"rolled back 3 times; .*learning_rate.* last good state is .*checkpoint-2"
    ):
        train(tmp_path, **wild)
    assert not (tmp_path / "resume" / "checkpoint-3").exists()


def test_each_epoch_takes_every_row_in_another_order(tmp_path: Path) -> None:
    seen: list[int] = []

    class RecordingList(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            seen.append(index)
            return super().__getitem__(index)

    train(tmp_path, RecordingList(ROWS), num_train_epochs=2)
    first, second = seen[-24:-12], seen[-12:]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
