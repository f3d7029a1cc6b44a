"""The stage `pretrain`, from text to a folder that plain transformers loads."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llamita.corpus.shards import TokenShards
from llamita.errors import DataError
from llamita.model import saving
from llamita.model.initial_weights import new_causal_lm
from llamita.pretrain import stage, validation
from llamita.pretrain.settings import PretrainSettings
from llamita.training.ordered_trainer import OrderedTrainer

from ..helpers.material import PRETRAIN, write_data
from ..helpers.repository import zero_file
from ..helpers.two_ranks import on_two_deepspeed_ranks

BITS = "validation_bits_per_byte"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    tokenizer.save_pretrained(root / "tokenizer")
    return {"tokenizer": root / "tokenizer", "data": write_data(root / "data")}


def run(inputs: dict[str, Path], out: Path, steps: int = 4, **changes: Any) -> dict[str, Any]:
    out.mkdir()
    changes["trainer"] = PRETRAIN["trainer"] | {"learning_rate": 1e-2, "max_steps": steps}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "disabled")
        return stage.run(PretrainSettings.model_validate(PRETRAIN | changes), inputs, out)


@pytest.fixture(scope="module")
def made(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("run") / "pretrain"
    return out, run(inputs, out, steps=60)


def test_it_learns_and_its_metrics_show_it(made: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = made
    losses = [json.loads(line)["train/loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 1
    assert metrics["validation_bits_per_byte"] < metrics["unigram_bits_per_byte"]
    assert metrics["steps"] == 60
    train = metrics["corpus"]["train"]
    assert train["documents"] == 100
    assert metrics["unused_tokens"] == train["tokens"] % 32
    assert metrics["parameters"] == AutoModelForCausalLM.from_pretrained(out / "model").num_parameters()
    json.dumps(metrics)


def documents_of(ids: list[int]) -> list[list[int]]:
    """A row cut where documents begin (BOS is 1)."""
    starts = [0, *(place for place in range(1, len(ids)) if ids[place] == 1), len(ids)]
    return [ids[start:end] for start, end in pairwise(starts)]


@torch.no_grad()
def costs(model: Any, ids: list[int]) -> dict[int, float]:
    """Nats of each token after the first, by its place."""
    logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return {place: -float(logits[place - 1, ids[place]]) for place in range(1, len(ids))}


@pytest.mark.parametrize("across", [False, True])
def test_bits_per_byte_of_the_saved_model(inputs: dict[str, Path], tmp_path: Path, across: bool) -> None:
    """The validation text of 20 documents, through plain transformers, window by window."""
    metrics = run(inputs, tmp_path / "out", steps=20, cross_document_attention=across)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    raw = (tmp_path / "out" / "shards" / "validation" / "000" / "shard-00000.bin").read_bytes()
    ids = [int.from_bytes(raw[at : at + 2], "little") for at in range(0, len(raw), 2)]
    windows = [ids[start : start + 33] for start in range(0, len(ids) - 1, 32)]
    texts = windows if across else [text for window in windows for text in documents_of(window)]
    nats = sum(cost for text in texts for place, cost in costs(model, text).items() if text[place] != 1)
    size = metrics["corpus"]["validation"]["bytes"]
    assert metrics["validation_bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_without_bos_the_bytes_of_first_tokens_are_not_counted(
    inputs: dict[str, Path], tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = copy.deepcopy(tokenizer)
    without.bos_token = None
    without.save_pretrained(tmp_path / "tokenizer")
    sizes = set[int]()
    for module in (stage, validation):
        monkeypatch.setattr(module, "bits_per_byte", lambda _, size: sizes.add(size) or 1.0)
    metrics = run(inputs | {"tokenizer": tmp_path / "tokenizer"}, tmp_path / "out", steps=1)
    assert sizes == {metrics["corpus"]["validation"]["bytes"] - 20 * len("the")}


@pytest.mark.parametrize("across", [False, True])
def test_the_loss_of_a_step_is_the_mean_over_its_documents(
    inputs: dict[str, Path], tmp_path: Path, across: bool
) -> None:
    """One step over all rows; initial weights are so large that losses depend on which tokens are visible."""
    sizes = PRETRAIN["model"] | {"initializer_range": 0.5}
    trainer = PRETRAIN["trainer"] | {"max_steps": 1, "per_device_train_batch_size": 1000}
    settings = {"model": sizes, "trainer": trainer, "cross_document_attention": across}
    out = tmp_path / "out"
    out.mkdir()
    stage.run(PretrainSettings.model_validate(PRETRAIN | settings), inputs, out)
    logged = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["train/loss"]

    shards = TokenShards(out / "shards" / "train" / "000")
    rows = [shards.read(32 * row, 32 * row + 32).tolist() for row in range(shards.tokens // 32)]
    texts = rows if across else [text for row in rows for text in documents_of(row)]
    model = new_causal_lm(AutoConfig.from_pretrained(out / "model"), seed=0)
    expected = [
        cost for text in texts for cost in costs(model, text).values()
    ]  # without the starts of documents
    assert logged == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_held_out_text_is_evaluated_during_training(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = run(inputs, tmp_path / "out", steps=10, eval_steps=5)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    bits = {row["step"]: row["eval/bits_per_byte"] for row in rows if "eval/bits_per_byte" in row}
    assert bits.keys() == {5, 10}
    assert bits[5] > bits[10] == pytest.approx(metrics[BITS], rel=1e-5)
    run(inputs, tmp_path / "without", steps=10)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("out", "without")]
    assert weights[0] == weights[1]  # evaluation changes nothing


def test_a_failure_of_the_final_evaluation_does_not_cost_the_training(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start evaluates the trained model; no step is taken again, also within an epoch."""
    whole = run(inputs, tmp_path / "whole", steps=5)
    with monkeypatch.context() as broken:
        broken.setattr(validation, "bits_per_byte", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(inputs, tmp_path / "out", steps=5)
    monkeypatch.setattr(OrderedTrainer, "training_step", lambda *_: pytest.fail("a step was trained again"))
    clocks = {"train_seconds", "tokens_per_second", "tflops_per_second", "peak_memory_gb"}
    settings = PRETRAIN | {"trainer": PRETRAIN["trainer"] | {"learning_rate": 1e-2, "max_steps": 5}}
    again = stage.run(PretrainSettings.model_validate(settings), inputs, tmp_path / "out")
    assert {key: again[key] for key in again.keys() - clocks} == {
        key: whole[key] for key in whole.keys() - clocks
    }
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.long
def test_a_failed_final_evaluation_under_zero_3(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Two ranks, which take no step again, evaluate and publish what one process has trained.

    They also remove the file of weights that a killed save has left, which loading would prefer.
    """
    whole = run(inputs, tmp_path / "whole", steps=5)
    trainer = PRETRAIN["trainer"] | {"learning_rate": 1e-2, "max_steps": 5, "per_device_train_batch_size": 2}
    settings = PretrainSettings.model_validate(PRETRAIN | {"trainer": trainer, "deepspeed": zero_file(3)})
    out = tmp_path / "out"
    out.mkdir()

    def failing() -> None:
        validation.bits_per_byte = lambda *_: 1 / 0
        with pytest.raises(ZeroDivisionError):
            stage.run(settings, inputs, out)

    def resuming() -> dict[str, Any]:
        OrderedTrainer.training_step = lambda *_: pytest.fail("a step was trained again")
        saving.FILE_SIZE = 20_000
        return stage.run(settings, inputs, out)

    (out / "model").mkdir()
    (out / "model" / "model.safetensors").write_bytes(b"broken")
    for number, work in enumerate((failing, resuming)):
        (tmp_path / str(number)).mkdir()
        metrics, _ = on_two_deepspeed_ranks(work, tmp_path / str(number))
    for key in ("steps", "train_loss", "final_loss", BITS):
        assert metrics[key] == pytest.approx(whole[key], rel=1e-4)
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name / "model") for name in ("whole", "out"))
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], weight, rtol=0, atol=1e-5)


def test_a_flipped_byte_stops_it_before_training(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(inputs, tmp_path / "out")
    shard = tmp_path / "out" / "shards" / "train" / "000" / "shard-00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    given = {"tokenizer": inputs["tokenizer"], "corpus": tmp_path / "out" / "shards"}
    with pytest.raises(DataError, match=r"shard-00000.bin: the checksum differs from that in index.json"):
        run(given, tmp_path / "again", documents=[], validation=[])


def test_same_seed_same_weights(inputs: dict[str, Path], tmp_path: Path) -> None:
    weights = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        run(inputs, tmp_path / name, seed=seed)
        weights.append((tmp_path / name / "model" / "model.safetensors").read_bytes())
    first, again, other = weights
    assert first == again
    assert first != other


def test_too_little_text_for_one_row(inputs: dict[str, Path], tmp_path: Path) -> None:
    few = [{**PRETRAIN["documents"][0], "limit": 1}]
    with pytest.raises(DataError, match="expected at least one row of 32"):
        run(inputs, tmp_path / "out", documents=few)


def test_plain_transformers_reads_it(made: tuple[Path, dict[str, Any]]) -> None:
    """In a process that can't import llamita: chat template with a system message, generate, decode."""
    code = f"""
import sys
sys.modules["llamita"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = {str(made[0] / "model")!r}
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
messages = [{{"role": "system", "content": "be fine"}}, {{"role": "user", "content": "is it red ?"}}]
options = {{"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}}
inputs = tokenizer.apply_chat_template(messages, **options)
print(inputs["input_ids"][0].tolist().count(1))
answer = model.generate(**inputs, max_new_tokens=8, do_sample=False)
assert (answer[:, : inputs["input_ids"].shape[1]] == inputs["input_ids"]).all()
print(repr(tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)))
assert isinstance(tokenizer.decode(answer[0], skip_special_tokens=True), str)
text = tokenizer("the color of", add_special_tokens=False, return_tensors="pt")["input_ids"]
start = torch.cat([torch.tensor([[1]]), text], dim=1)
likely = model(input_ids=start).logits[0, -1].softmax(-1)
colors = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in "red fine yes today".split()]
print(likely[colors].sum().item() > 0.05)
print(model.config.pad_token_id, model.generation_config.eos_token_id, model.dtype)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    prompt = "[INST] <<SYS>>\\nbe fine\\n<</SYS>>\\n\\nis it red ? [/INST]"
    assert done.stdout.splitlines() == ["1", f"'{prompt}'", "True", "0 2 torch.float32"]


def test_an_empty_trainer_section_gives_the_papers_settings(
    inputs: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    """The paper's 4M tokens per step are 131,072 of these short rows."""
    chosen = PRETRAIN | {"trainer": {"max_steps": 2, "logging_steps": 1}}
    stage.run(PretrainSettings.model_validate(chosen), inputs, tmp_path)
    rates = [json.loads(line)["train/learning_rate"] for line in (tmp_path / "metrics.jsonl").open()]
    assert rates == pytest.approx([0, 3e-4 / 2000])
    assert "a step has 131,072 rows (128 x 1024 micro-batches x 1 ranks)" in capsys.readouterr().out
