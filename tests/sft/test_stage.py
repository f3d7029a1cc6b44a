"""The stage `sft` with the real `SFTTrainer`: its first loss computed by hand, and its output folder."""

from __future__ import annotations

import gc
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from llamita.errors import ConfigError, DataError
from llamita.model.checkpoint import load_causal_lm
from llamita.sft import stage
from llamita.sft.settings import SftSettings

from ..helpers.held_elements import HeldElements
from ..helpers.material import SFT
from ..helpers.repository import zero_file
from ..helpers.rows import turn, write
from ..helpers.slow_encoder import SlowEncoder
from ..helpers.sources import source_setting
from ..helpers.tiny import save_tiny_model
from ..helpers.two_ranks import on_two_deepspeed_ranks

pytestmark = pytest.mark.usefixtures("without_wandb")

SYSTEM = {"role": "system", "content": "you are fine"}
PLAIN = [
    turn("is it red ?", "it is red") + turn("again ?", "yes my friend it is"),
    turn("hi", "how are you today ?"),
    [SYSTEM, *turn("what is the color of bolo ?", "red")],
    turn("thanks", "yes , you"),
    turn("what is it ?", "it is the color of bolo again and again"),
]
GHOST = [
    turn("how are you ?", "fine") + turn("and today ?", "fine again") + turn("thanks", "fine thanks"),
    turn("is it bolo ?", "it is fine") + turn("yes ?", "fine"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    folder = save_tiny_model(root / "base" / "model", tokenizer, spread=0.1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    write(root / "dialogues.jsonl", [{"messages": messages} for messages in PLAIN])
    write(root / "gatt.jsonl", [{"instruction": "be my friend", "messages": one} for one in GHOST])
    write(root / "gatt_plain.jsonl", [{"messages": messages} for messages in GHOST])
    return {"model": folder.parent, "data": root}


def run(inputs: dict[str, Path], out: Path, changes: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    out.mkdir()
    section = SFT["trainer"] | {"max_steps": 1, "per_device_train_batch_size": 100} | trainer
    section = {name: value for name, value in section.items() if name != "num_train_epochs"}
    return stage.run(SftSettings.model_validate(SFT | {"trainer": section} | changes), inputs, out)


def logged(out: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


class ByHand:
    """Mean negative log-likelihood of the answers' tokens, EOS included, one dialogue at a time."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: Any) -> None:
        self.model, self.encoder = model, SlowEncoder(tokenizer.backend_tokenizer.to_str())
        self.costs: list[float] = []
        self.smoothing: list[float] = []  # mean cost over the whole vocabulary

    def add(self, messages: list[dict[str, str]], last_only: bool = False) -> None:
        system = [one for one in messages if one["role"] == "system"]
        turns = messages[len(system) :]
        before: list[int] = []
        for at in range(0, len(turns), 2):
            prompt = before + self.encoder.dialogue([*system, *turns[: at + 1]])[len(before) :]
            before = self.encoder.dialogue([*system, *turns[: at + 2]])
            assert before[: len(prompt)] == prompt
            assert before[-1] == 2
            if last_only and at + 2 < len(turns):
                continue
            with torch.no_grad():
                logs = self.model(input_ids=torch.tensor([before])).logits[0].double().log_softmax(-1)
            self.costs += [-float(logs[at - 1, before[at]]) for at in range(len(prompt), len(before))]
            self.smoothing += [-float(logs[at - 1].mean()) for at in range(len(prompt), len(before))]

    @property
    def mean(self) -> float:
        return sum(self.costs) / len(self.costs)


@pytest.mark.parametrize("instructed", [True, False], ids=["ghost_attention", "its_ablation"])
def test_the_first_loss_by_hand(
    inputs: dict[str, Path], tmp_path: Path, tokenizer: Any, instructed: bool
) -> None:
    """Dialogues of a row don't see each other; only answers are trained (Ghost Attention: the last one)."""
    by_hand = ByHand(AutoModelForCausalLM.from_pretrained(inputs["model"] / "model"), tokenizer)
    for messages in PLAIN:
        by_hand.add(messages)
    instruction = [{"role": "system", "content": "be my friend"}] if instructed else []
    for messages in GHOST:
        by_hand.add([*instruction, *messages], last_only=True)

    changes = {"ghost_attention": source_setting("gatt" if instructed else "gatt_plain", "messages")}
    metrics = run(inputs, tmp_path / "whole", changes)
    assert metrics["dialogues"] == 7
    assert metrics["rows"] < 7, "packed"
    assert metrics["trained_tokens"] == len(by_hand.costs)
    assert logged(tmp_path / "whole") == [pytest.approx(by_hand.mean, rel=1e-5)]
    if instructed:  # micro-batches of one row give the same step
        parts = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": metrics["rows"]}
        run(inputs, tmp_path / "parts", changes, **parts)
        assert logged(tmp_path / "parts") == [pytest.approx(by_hand.mean, rel=1e-5)]


def test_other_losses_of_the_trainer_are_computed(
    inputs: dict[str, Path], tmp_path: Path, tokenizer: Any
) -> None:
    by_hand = ByHand(AutoModelForCausalLM.from_pretrained(inputs["model"] / "model"), tokenizer)
    for messages in PLAIN:
        by_hand.add(messages)
    plain: dict[str, Any] = {"ghost_attention": []}
    run(inputs, tmp_path / "smoothed", plain, label_smoothing_factor=0.3)
    smoothed = [0.7 * c + 0.3 * s for c, s in zip(by_hand.costs, by_hand.smoothing, strict=True)]
    assert logged(tmp_path / "smoothed") == [pytest.approx(sum(smoothed) / len(smoothed), rel=1e-5)]
    run(inputs, tmp_path / "dft", plain, loss_type="dft")
    weighted = [math.exp(-cost) * cost for cost in by_hand.costs]
    assert logged(tmp_path / "dft") == [pytest.approx(sum(weighted) / len(weighted), rel=1e-5)]


def test_it_learns_and_the_same_seed_gives_the_same_weights(
    inputs: dict[str, Path], tmp_path: Path, tokenizer: Any
) -> None:
    weights = []
    for name, seed in (("once", 0), ("again", 0), ("other", 1)):
        out = tmp_path / name
        options = {"per_device_train_batch_size": 1, "learning_rate": 1e-2, "save_steps": 39}
        metrics = run(inputs, out, {"seed": seed}, max_steps=40, **options)
        weights.append((out / "model" / "model.safetensors").read_bytes())
        assert metrics["final_loss"] < 0.3 * logged(out)[0]
        assert metrics["steps"] == 40
        json.dumps(metrics)
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    assert not (tmp_path / "once" / "README.md").exists(), "trl's card, different in each process"

    folder = tmp_path / "once" / "model"
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        assert [config[f"{token}_token_id"] for token in ("pad", "bos", "eos")] == [0, 1, 2]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.use_cache
    prompt = tokenizer.apply_chat_template(
        turn("hi"), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer).strip() == "how are you today ? </s>", (
        "it repeats the trained answer and stops"
    )


def test_what_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_length: 129 is above the model's context of 128"):
        run(inputs, tmp_path / "long", {"max_length": 129})
    with pytest.raises(DataError, match="none of 7 dialogues fits into a row of 4 tokens"):
        run(inputs, tmp_path / "short", {"max_length": 4})
    (inputs["model"] / "model" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    try:
        with pytest.raises(DataError, match="expected a model folder with its tokenizer"):
            run(inputs, tmp_path / "none", {})
    finally:
        (tmp_path / "tokenizer.json").rename(inputs["model"] / "model" / "tokenizer.json")


def test_an_empty_trainer_section_gives_the_papers_settings(
    inputs: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    stage.run(SftSettings.model_validate(SFT | {"trainer": {"max_steps": 1}}), inputs, tmp_path)
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row["train/learning_rate"] == 2e-5
    assert "a step has 64 rows (32 x 2 micro-batches x 1 ranks), in the paper 64" in capsys.readouterr().out


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_weights_and_optimizer_are_freed(
    inputs: dict[str, Path], tmp_path: Path, tokenizer: Any, lora: dict[str, Any] | None
) -> None:
    """Of the tensors with the width of this model's feed-forward layers none is left."""
    width = 56

    def alive() -> list[tuple[int, ...]]:
        gc.collect()
        tensors = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
        return [tuple(one.shape) for one in tensors if width in one.shape]

    model = save_tiny_model(tmp_path / "base" / "model", tokenizer, intermediate_size=width).parent
    run(inputs | {"model": model}, tmp_path / "out", {"lora": lora}, max_steps=2)
    assert not alive()
    kept = load_causal_lm(tmp_path / "out")
    assert len(alive()) == 3 * kept.config.num_hidden_layers


@pytest.mark.long
def test_nothing_stays_after_deepspeed(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Of all memory that two ranks have held, one run after the other in the same processes."""
    trainer = {"max_steps": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    cases = {
        f"ZeRO-{zero}, LoRA {lora}": {"deepspeed": zero_file(zero), "lora": lora, "trainer": trainer}
        for zero, lora in itertools.product((3, 2), (None, {"r": 4}))
    }

    def work() -> dict[str, int]:
        left = {}
        for name, changes in cases.items():
            with HeldElements() as held:
                stage.run(SftSettings.model_validate(SFT | changes), inputs, tmp_path / name)
                gc.collect()
                left[name] = held.now
            assert held.most > 10_000
        return left

    for name in cases:
        (tmp_path / name).mkdir()
    assert on_two_deepspeed_ranks(work, tmp_path) == [dict.fromkeys(cases, 0)] * 2
