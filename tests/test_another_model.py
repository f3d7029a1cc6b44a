"""All stages from SFT on with another model: ChatML, byte-level BPE, EOS as pad, tied weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llamita.chat_format.llama2 import CHAT_TEMPLATE
from llamita.errors import DataError
from llamita.model.checkpoint import load_tokenizer
from llamita.model.saving import save_model
from llamita.model.scorer import Scorer
from llamita.pretrain import stage as pretrain
from llamita.pretrain.settings import PretrainSettings
from llamita.reward import stage as reward
from llamita.reward.settings import RewardSettings
from llamita.rlhf.ppo import stage as ppo
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.rejection import stage as rejection
from llamita.rlhf.rejection.settings import RejectionSettings
from llamita.sft import stage as sft
from llamita.sft.settings import SftSettings

from .helpers.chatml import CHATML, chatml_tokenizer
from .helpers.llama3 import llama3_tokenizer
from .helpers.material import HELPFULNESS, PRETRAIN, SAFETY, SFT, write_data
from .helpers.rlhf import PPO, REJECTION
from .helpers.rows import turn
from .helpers.stage_runs import run
from .helpers.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("without_wandb")

EOS = 2
SIZE = {"vocab_size": 400, "tie_word_embeddings": True, "pad_token_id": EOS, "max_position_embeddings": 256}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    write_data(root / "data")
    model = tiny_model(spread=0.05, **SIZE)
    if request.param == "qwen2":  # not a Llama, so it is sampled with `generate`
        shape = {name: value for name, value in model.config.to_dict().items() if name != "architectures"}
        model = Qwen2ForCausalLM(Qwen2Config(**shape | {"model_type": "qwen2"}))
    save_model(model, chatml_tokenizer(), root / "base")
    return root


@pytest.fixture(scope="module")
def tuned(root: Path) -> dict[str, Any]:
    """Metrics of each stage, in order; their folders are below `root`."""
    trainer = SFT["trainer"] | {"max_steps": 150, "learning_rate": 1e-2}
    chosen = SFT | {"max_length": 256, "trainer": trainer}
    metrics = {"sft": run(sft, SftSettings, chosen, root, "sft", model="base")}
    for name, base in (("helpfulness", HELPFULNESS), ("safety", SAFETY)):
        metrics[name] = run(reward, RewardSettings, base | {"max_length": 200}, root, name, model="sft")
    models = {"helpfulness": "helpfulness", "safety": "safety"}
    any_answer = REJECTION | {"safety_threshold": 0.0}  # so small a model scores all answers as unsafe
    metrics["rejection"] = run(
        rejection, RejectionSettings, any_answer, root, "rejection", base="base", model="sft", **models
    )
    metrics["ppo"] = run(ppo, PpoSettings, PPO, root, "ppo", start="rejection", **models)
    return metrics


def test_sft_uses_the_models_format_and_learns_to_stop(root: Path, tuned: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(root / "sft" / "model")
    assert tokenizer.chat_template == CHATML
    assert (tokenizer.pad_token, tokenizer.eos_token_id) == ("<|endoftext|>", EOS), "a pad is no EOS"
    assert tuned["sft"]["final_loss"] < 0.5
    model = AutoModelForCausalLM.from_pretrained(root / "sft" / "model")
    prompts = [
        tokenizer.apply_chat_template(turn(f"is it {c} ?"), add_generation_prompt=True, tokenize=False)
        for c in ("red", "bolo", "again friend")
    ]
    batch = tokenizer(
        prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    answers = model.generate(**batch, max_new_tokens=24, do_sample=False)[:, batch["input_ids"].shape[1] :]
    assert tokenizer.batch_decode(answers, skip_special_tokens=True)[0].startswith("it is")
    assert bool((answers == EOS).any(dim=1).all())


def test_a_reward_model_pads_with_another_token_than_eos(root: Path, tuned: dict[str, Any]) -> None:
    """`transformers` reads a score at the last token but pads, which must be the EOS, also in batches."""
    assert tuned["helpfulness"]["accuracy"] == tuned["safety"]["accuracy"] == 1
    folder = root / "safety" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0
    prompts = [
        tokenizer.apply_chat_template(turn(text), add_generation_prompt=True)["input_ids"]
        for text in ("what is red ?", "is it bolo again my friend ?")
    ]
    answers = [[*tokenizer("thanks", add_special_tokens=False)["input_ids"], EOS], [EOS]]
    rows = [{"input_ids": prompt + answer} for prompt, answer in zip(prompts, answers, strict=True)]
    with torch.no_grad():
        batch = tokenizer.pad(rows, return_tensors="pt", padding_side="right")
        plain = model(**batch).logits.squeeze(-1)
    contents = [answer[:-1] for answer in answers]
    ours = Scorer(root / "safety", load_tokenizer(root / "sft")).raw(prompts, contents)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_ppo_starts_with_ratio_one(root: Path, tuned: dict[str, Any]) -> None:
    assert tuned["rejection"]["selected"] > 0
    rows = [json.loads(line) for line in (root / "ppo" / "metrics.jsonl").read_text().splitlines()]
    for name, most in (("first_ratio_deviation", 1e-5), ("sampler_deviation", 1e-4)):
        found = [value for row in rows for key, value in row.items() if key.endswith(name)]
        assert len(found) == 2
        assert max(found) < most
    assert AutoTokenizer.from_pretrained(root / "ppo" / "model").chat_template == CHATML


def test_chat(root: Path, tuned: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "llamita.cli", "chat", str(root / "sft"), "--temperature", "0"]
    done = subprocess.run(command, input="is it red ?\n", capture_output=True, text=True, check=True)
    assert done.stdout.startswith("it is")


def test_llama2s_format_instead_of_the_models_own(root: Path) -> None:
    changes = {"max_length": 256, "chat_format": "llama2", "trainer": SFT["trainer"] | {"max_steps": 1}}
    run(sft, SftSettings, SFT | changes, root, "sft_llama2", model="base")
    tokenizer = AutoTokenizer.from_pretrained(root / "sft_llama2" / "model")
    assert tokenizer.chat_template == CHAT_TEMPLATE


def test_a_folder_without_a_chat_template(root: Path) -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = None
    save_model(tiny_model(**SIZE), tokenizer, root / "silent")
    with pytest.raises(
        DataError, match=r"silent: the tokenizer has no chat template; use .* `chat_format: llama2`"
    ):
        run(sft, SftSettings, SFT, root, "sft_silent", model="silent")


def test_pretraining_continues_from_a_model(root: Path, tuned: dict[str, Any]) -> None:
    chosen = {key: value for key, value in PRETRAIN.items() if key != "model"}
    metrics = run(pretrain, PretrainSettings, chosen, root, "pretrain", model="sft")
    assert metrics["steps"] == 20
    before, after = (
        AutoModelForCausalLM.from_pretrained(root / name / "model") for name in ("sft", "pretrain")
    )
    moved = (before.model.embed_tokens.weight - after.model.embed_tokens.weight).abs().max()
    assert 0 < moved < 0.2, "it began at the given weights"
    assert AutoTokenizer.from_pretrained(root / "pretrain" / "model").chat_template == CHATML


# ------------------------------------------------------------------- a tokenizer without pad and unk


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer like Llama 3's, but without reserved tokens."""
    root = tmp_path_factory.mktemp("bare")
    write_data(root / "data")
    tokenizer = llama3_tokenizer(reserved=False)
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 256}
    save_model(tiny_model(spread=0.05, **size), tokenizer, root / "base")
    return root


def test_every_stage_adds_the_pad_token(bare: Path) -> None:
    few = {"trainer": SFT["trainer"] | {"max_steps": 2}}
    run(sft, SftSettings, SFT | {"max_length": 256} | few, bare, "sft", model="base")
    for name, base in (("helpfulness", HELPFULNESS), ("safety", SAFETY)):
        run(reward, RewardSettings, base | {"max_length": 200} | few, bare, name, model="sft")
    models = {"helpfulness": "helpfulness", "safety": "safety"}
    run(rejection, RejectionSettings, REJECTION, bare, "rejection", base="base", model="sft", **models)
    run(ppo, PpoSettings, PPO | {"iterations": 1}, bare, "ppo", start="rejection", **models)
    pad = len(llama3_tokenizer(reserved=False))
    for name in ("sft", "helpfulness", "safety", "rejection", "ppo"):
        tokenizer = AutoTokenizer.from_pretrained(bare / name / "model")
        config = json.loads((bare / name / "model" / "config.json").read_text())
        assert tokenizer.pad_token_id == config["pad_token_id"] == pad
        assert tokenizer.eos_token_id == config["eos_token_id"] != pad
        assert config["vocab_size"] == len(tokenizer) == pad + 1


def test_a_new_model_with_this_tokenizer(bare: Path) -> None:
    chosen = PRETRAIN | {"trainer": PRETRAIN["trainer"] | {"max_steps": 1}}
    run(pretrain, PretrainSettings, chosen, bare, "new", tokenizer="base")
    tokenizer = load_tokenizer(bare / "base")
    model = AutoModelForCausalLM.from_pretrained(bare / "new" / "model")
    for config in (model.config, model.generation_config):
        ids = [config.pad_token_id, config.bos_token_id, config.eos_token_id]
        assert ids == [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert model.model.embed_tokens.weight[0].abs().max() > 0, "token 0 is no pad here"
