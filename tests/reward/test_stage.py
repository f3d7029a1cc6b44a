"""The stage as a whole, and its output folder used without llamita."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig

from llamita.errors import ConfigError, DataError
from llamita.model import scoring
from llamita.model.checkpoint import load_tokenizer
from llamita.model.scorer import Scorer
from llamita.model.scoring import terminal_scores
from llamita.reward import stage
from llamita.reward.accuracy import score_pairs
from llamita.reward.pairs import Pairs, read_pairs
from llamita.training.arguments import training_arguments

from ..helpers.material import HELPFULNESS, SAFETY, write_data
from ..helpers.reward import settings
from ..helpers.sources import source_setting
from ..helpers.tiny import save_tiny_model, save_tiny_reward_model

PLAIN = """
import sys
sys.modules["llamita"] = None  # whoever imports it fails
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
chat = [{"role": "user", "content": "what is red ?"}, {"role": "assistant", "content": "thanks my friend"}]
ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)["input_ids"]
with torch.no_grad():
    print(model(input_ids=ids).logits.item())
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    model = save_tiny_model(root / "sft" / "model", tokenizer, spread=0.05).parent
    return {"model": model, "data": write_data(root / "data")}


@pytest.fixture(scope="module")
def safety(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("run") / "safety"
    return out, stage.run(settings(SAFETY, mix_share=0.2), inputs, out)


def test_it_learns_and_reports_accuracy(safety: tuple[Path, dict[str, Any]]):
    _, metrics = safety
    assert metrics["accuracy"] == 1
    assert metrics["by_rating"].keys() == metrics["by_rating_se"].keys() == metrics["pairs_by_rating"].keys()
    assert metrics["pairs"] == 24
    assert metrics["mixed_pairs"] == 16  # a fifth of the 80
    assert metrics["train_pairs"] == 80
    in_bin = metrics["safety"]["by_bin"]["safe_unsafe"]
    assert (in_bin["pairs"], in_bin["accuracy"], in_bin["accuracy_se"]) == (24, 1, 0)
    detected = metrics["safety"]["unsafe_below"]["0.5"]
    assert (detected["precision"], detected["recall"]) == (1, 1)
    assert metrics["final_loss"] < metrics["train_loss"]


def test_held_out_pairs_are_read_one_by_one_and_scored_in_their_order(
    inputs: dict[str, Path], tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither all pairs nor the ids of all answers exist at once."""
    folder = save_tiny_reward_model(tmp_path / "model", tokenizer)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    chosen = settings(SAFETY)
    _, pairs, _ = read_pairs(chosen, inputs["data"], tokenizer, folder=tmp_path / "rows")
    rows = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    expected = terminal_scores(model, rows).split(len(pairs))
    living: dict[str, weakref.WeakValueDictionary[int, Any]] = {}
    most: dict[str, int] = {}
    read: Counter[str] = Counter()

    class Ids(list[int]):
        """A list that can be counted."""

    def counted(kind: str, made: Any) -> Any:
        alive = living.setdefault(kind, weakref.WeakValueDictionary())
        read[kind] += 1
        alive[read[kind]] = made
        most[kind] = max(most.get(kind, 0), len(alive))
        return made

    element, ids, batch = Pairs.element, Pairs.ids, 4
    monkeypatch.setattr(Pairs, "element", lambda self, index: counted("pairs", element(self, index)))
    monkeypatch.setattr(Pairs, "ids", lambda self, *place: counted("ids", Ids(ids(self, *place))))
    monkeypatch.setattr(scoring, "SHARED_BATCH", batch)
    assert len(pairs) > 2 * batch
    for scores, found in zip(expected, score_pairs(model, pairs), strict=True):
        assert found == pytest.approx(scores.tolist(), abs=1e-5)
    assert read == {"ids": 2 * len(pairs)}
    stage._held_out_metrics(chosen, model, pairs)
    assert most["pairs"] <= 2
    assert most["ids"] <= 2 * batch


def test_a_general_model_is_a_third_kind(inputs: dict[str, Path], tmp_path: Path):
    few = HELPFULNESS["trainer"] | {"max_steps": 1}
    both = source_setting("helpfulness", "comparison") + source_setting("safety", "comparison")
    metrics = stage.run(
        settings(HELPFULNESS, kind="general", comparisons=both, trainer=few), inputs, tmp_path
    )
    assert metrics["train_pairs"] == 128
    assert "safety" not in metrics
    description = json.loads((tmp_path / "model" / "reward.json").read_text())
    assert (description["kind"], description["unsafe_below"]) == ("general", None)


def test_the_folder_gives_the_same_scores_without_llamita(safety: tuple[Path, dict[str, Any]]):
    folder = safety[0] / "model"
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder)], capture_output=True, text=True, check=True
    )
    tokenizer = load_tokenizer(folder)
    messages = [
        {"role": "user", "content": "what is red ?"},
        {"role": "assistant", "content": "thanks my friend"},
    ]
    ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    scorer = Scorer(safety[0], tokenizer)
    assert float(done.stdout) == pytest.approx(scorer.raw([ids[:-3]], [ids[-3:-1]]).item(), abs=1e-5)
    description = json.loads((folder / "reward.json").read_text())
    assert description["kind"] == "safety"
    assert description["direction"] == "higher is better"
    assert description["unsafe_below"] == 0.15


def test_same_seed_same_model(safety: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path):
    stage.run(settings(SAFETY, mix_share=0.2), inputs, tmp_path / "again")
    weights = [
        (folder / "model" / "model.safetensors").read_bytes() for folder in (safety[0], tmp_path / "again")
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("pairs", "trainer", "steps"),
    [
        (6400, {}, 6),  # 200 steps
        (6400, {"num_train_epochs": 2}, 12),
        (6401, {}, 7),  # of 201
        (64, {}, 5),
        (64, {"max_steps": 1000}, 30),
    ],
)
def test_warm_up_is_three_percent_and_at_least_five_steps(
    tmp_path: Path, pairs: int, trainer: dict[str, Any], steps: int
):
    section = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "num_train_epochs": 1}
    arguments = training_arguments(RewardConfig, section | trainer, tmp_path, seed=0)
    assert stage.warmup_steps(arguments, pairs) == steps


def test_long_pairs_are_skipped_and_counted(inputs: dict[str, Path], tmp_path: Path, capsys: Any):
    data = write_data(tmp_path / "data")
    with (data / "helpfulness.jsonl").open("a") as file:
        long = {"prompt": "red " * 90, "chosen": "yes", "rejected": "bolo"}
        file.write(json.dumps(long) + "\n")
    few = HELPFULNESS["trainer"] | {"max_steps": 1}
    metrics = stage.run(settings(HELPFULNESS, trainer=few), inputs | {"data": data}, tmp_path / "out")
    assert metrics["skipped"]["longer than 96 tokens"] == 1
    assert metrics["train_pairs"] == 64
    assert "longer than 96 tokens" in capsys.readouterr().out


def test_held_out_pairs_share_no_prompt_with_the_others(inputs: dict[str, Path], tmp_path: Path):
    one_file = {"test": [], "held_out": 10, "trainer": HELPFULNESS["trainer"] | {"max_steps": 1}}
    metrics = stage.run(settings(HELPFULNESS, **one_file), inputs, tmp_path / "out")
    assert metrics["pairs"] >= 10
    assert metrics["pairs"] + metrics["train_pairs"] == 64


def test_errors_come_before_training(inputs: dict[str, Path], tmp_path: Path):
    with pytest.raises(ConfigError, match="max_length: 200"):
        stage.run(settings(HELPFULNESS, max_length=200), inputs, tmp_path / "out")
    with pytest.raises(DataError, match="no training pair"):
        stage.run(settings(HELPFULNESS, max_length=5), inputs, tmp_path / "out")


def test_an_empty_trainer_section_is_the_papers(inputs: dict[str, Path], tmp_path: Path, capsys: Any):
    section = {"max_steps": 2, "logging_steps": 1}
    stage.run(settings(HELPFULNESS, trainer=section), inputs, tmp_path)
    rates = [json.loads(line)["train/learning_rate"] for line in (tmp_path / "metrics.jsonl").open()]
    assert rates == pytest.approx([0, 1e-5 / 5])  # of five steps of warm-up
    assert (
        "a step has 512 rows (16 x 32 micro-batches x 1 ranks), in the paper 512" in capsys.readouterr().out
    )
