"""The stages from SFT on with adapters: trained and frozen weights, the base model that PPO shares."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

from llamita.errors import ConfigError, DataError
from llamita.jsonl import read_rows
from llamita.model.checkpoint import load_causal_lm, load_reward_model, new_reward_model
from llamita.model.lora import base_model_of, load_trainable, plain
from llamita.pretrain.settings import PretrainSettings
from llamita.reward import stage as reward
from llamita.reward.settings import RewardSettings
from llamita.rlhf.ppo import stage as ppo
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.ppo.trainer import PpoTrainer
from llamita.rlhf.rejection import stage as rejection
from llamita.rlhf.rejection.settings import RejectionSettings
from llamita.rlhf.shared_base import SharedBaseModel
from llamita.sampling.decoder import Decoder
from llamita.sampling.weights import copy_weights
from llamita.sft import stage as sft
from llamita.sft.settings import SftSettings
from llamita.training.finetune import PackedTrainer
from llamita.training.loop import run_trainer

from .helpers.lora import LORA, tune
from .helpers.material import HELPFULNESS, PRETRAIN, SAFETY, SFT, write_data
from .helpers.repository import zero_file
from .helpers.rlhf import PPO, REJECTION
from .helpers.stage_runs import run
from .helpers.tiny import save_tiny_model
from .helpers.two_ranks import on_two_deepspeed_ranks

pytestmark = pytest.mark.usefixtures("without_wandb")

ADAPTED_REJECTION = REJECTION | {"lora": LORA, "max_length": 104}
ADAPTED_PPO = PPO | {"lora": LORA}
REWARD_MODELS = {"helpfulness": "helpfulness", "safety": "safety"}
IDS = torch.randint(3, 360, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    root = tmp_path_factory.mktemp("lora")
    write_data(root / "data")
    save_tiny_model(root / "base", tokenizer, spread=0.05)
    return root


@pytest.fixture(scope="module")
def tuned(root: Path) -> dict[str, Any]:
    """Metrics of each stage, in order; their folders are below `root`."""
    metrics = {"sft": tune(root, "sft", 60, LORA)}
    for name, base in (("helpfulness", HELPFULNESS), ("safety", SAFETY)):
        chosen = base | {"lora": LORA, "trainer": base["trainer"] | {"learning_rate": 1e-2}}
        metrics[name] = run(reward, RewardSettings, chosen, root, name, model="sft")
    start = "sft"
    for number in ("v1", "v2"):
        sampled, start = f"{number}_rejection", f"{number}_ppo"
        model = {"v1": "sft", "v2": "v1_ppo"}[number]
        metrics[sampled] = sample(root, sampled, {"round": number}, model=model)
        metrics[start] = train(root, start, {"round": number}, start=sampled)
    return metrics


def sample(root: Path, name: str, changes: dict[str, Any], **inputs: str) -> Any:
    """Rejection sampling from adapters."""
    taken = {"base": "base", "model": "sft", **REWARD_MODELS} | inputs
    return run(rejection, RejectionSettings, ADAPTED_REJECTION | changes, root, name, **taken)


def train(root: Path, name: str, changes: dict[str, Any], **inputs: str) -> Any:
    """PPO of adapters."""
    taken = {"start": "sft", **REWARD_MODELS} | inputs
    return run(ppo, PpoSettings, ADAPTED_PPO | changes, root, name, **taken)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("folder", ["sft", "v1_rejection", "v1_ppo", "v2_ppo"])
def test_a_saved_adapter_reloaded_and_merged_gives_the_same_logits(
    root: Path, tuned: dict[str, Any], folder: str
) -> None:
    merged = logits(AutoModelForCausalLM.from_pretrained(root / folder / "model"))
    base = AutoModelForCausalLM.from_pretrained(root / "base")
    assert not torch.allclose(merged, logits(base), atol=1e-2), "it has learned something"
    adapted = PeftModel.from_pretrained(base, root / folder / "adapter")
    torch.testing.assert_close(logits(adapted), merged, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(adapted.merge_and_unload()), merged, rtol=1e-4, atol=1e-4)


def test_the_reward_adapter_continues_that_of_sft(root: Path, tuned: dict[str, Any]) -> None:
    assert tuned["helpfulness"]["accuracy"] == tuned["safety"]["accuracy"] == 1
    assert base_model_of(root / "safety") == base_model_of(root / "sft") == base_model_of(root / "base")
    whole = AutoModelForSequenceClassification.from_pretrained(root / "safety" / "model").eval()
    base_model = SharedBaseModel(
        base_model_of(root / "base"),
        SftSettings.model_validate(SFT | {"lora": LORA}).adapter,
        bf16=False,
        partitioned=False,
    )
    role = base_model.reward_model("safety", root / "safety")
    with torch.no_grad():
        hidden, expected = role.base_model(input_ids=IDS), whole.model(input_ids=IDS)
        scores, known = (
            head(states.last_hidden_state) for head, states in ((role.score, hidden), (whole.score, expected))
        )
    torch.testing.assert_close(scores, known, rtol=1e-4, atol=1e-4)


def test_ppo_starts_with_ratio_one_and_no_divergence(root: Path, tuned: dict[str, Any]) -> None:
    for row in (tuned["v1_ppo"]["first"], tuned["v2_ppo"]["first"]):
        assert row["ppo/first_ratio_deviation"] < 1e-5
        assert row["ppo/kl"] == pytest.approx(0, abs=1e-5)
        assert row["ppo/sampler_deviation"] < 1e-4


def test_a_judge_of_rejection_sampling_is_another_adapter(root: Path, tuned: dict[str, Any]) -> None:
    sample(root, "judged", {}, judge="safety")
    rows = read_rows(root / "judged" / "scores.jsonl")
    assert [row["judge"] for row in rows] == [row["safety"] for row in rows]
    assert [row["judge"] for row in rows] != [row["helpfulness"] for row in rows]


def test_ppo_has_one_copy_of_the_weights(
    root: Path, tuned: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy, critic, reference and all reward models share the base model, which none of them changes."""
    trainers: list[PpoTrainer] = []
    unhampered = PpoTrainer.__init__

    def noting(self: PpoTrainer, *args: Any, **kwargs: Any) -> None:
        unhampered(self, *args, **kwargs)
        trainers.append(self)

    monkeypatch.setattr(PpoTrainer, "__init__", noting)
    logged = train(root, "noted", {}, judge="safety")["last"]
    assert logged["ppo/judge_score"] == logged["ppo/safety_score"], "the same adapter under another name"
    [trainer] = trainers
    base_model = trainer.policy.module.model._shared
    for other in (
        trainer.reference.module.model,
        trainer.critic.module.backbone,
        trainer._reward_models.helpfulness.model.base_model,
        trainer._reward_models.safety.model.base_model,
        trainer._reward_models.judge.model.base_model,
    ):
        assert other._shared is base_model
    base = load_causal_lm(root / "base").state_dict()
    expected = {
        k.replace(".base_layer.", "."): v
        for k, v in base_model.model.state_dict().items()
        if "lora_" not in k
    }
    assert base.keys() == expected.keys()
    assert all(torch.equal(base[name], expected[name]) for name in base)
    trained = sum(weight.numel() for weight in trainer.policy.module.parameters())
    assert trained == sum(4 * sum(layer.weight.shape) for _, layer in base_model._layers())


def launched(
    stage: str, values: dict[str, Any], root: Path, name: str, *, zero: int = 2, **inputs: str
) -> list[dict[str, Any]]:
    """A stage on two ranks under ZeRO, into `root/name`; the rows of its metrics."""
    file = zero_file(zero)
    config = root / f"{name}.yaml"
    config.write_text(json.dumps(values | {"deepspeed": str(file)}))
    folders = {key: root / folder for key, folder in {"data": "data", **inputs}.items()}
    given = [*(f"inputs.{key}={folder}" for key, folder in folders.items()), f"output={root / name}"]
    command = [sys.executable, "-m", "llamita.cli", stage, str(config), *given, "--processes", "2"]
    subprocess.run(command, check=True, timeout=600, cwd=root)
    return [json.loads(row) for row in (root / name / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_two_ranks_under_zero_2(root: Path, tuned: dict[str, Any]) -> None:
    trainer = SFT["trainer"] | {"max_steps": 6, "learning_rate": 1e-3, "per_device_train_batch_size": 2}
    chosen = SFT | {"lora": LORA, "trainer": trainer}
    made = run(sft, SftSettings, chosen, root, "alone", model="base")
    assert made["rows"] % 2 == 0, "two ranks would repeat rows to fill an epoch's last step"
    halved = chosen | {"trainer": trainer | {"per_device_train_batch_size": 1}}
    launched("sft", halved, root, "ranks", model="base")
    one, two, base = (load_causal_lm(root / name).state_dict() for name in ("alone", "ranks", "base"))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    assert max((one[name] - base[name]).abs().max().item() for name in one) > 1e-3

    sampled, trained = "rejection_ranks", "ppo_ranks"
    launched("rejection", ADAPTED_REJECTION, root, sampled, base="base", model="sft", **REWARD_MODELS)
    first, *_, last = launched("ppo", ADAPTED_PPO, root, trained, start=sampled, **REWARD_MODELS)
    assert first["ppo/kl"] == pytest.approx(0, abs=1e-5)
    assert first["ppo/sampler_deviation"] < 1e-4
    assert last["ppo/first_ratio_deviation"] < 1e-5
    start, end = (root / name / "adapter" for name in (sampled, trained))
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (start, end))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.long
def test_two_ranks_under_zero_3(root: Path) -> None:
    """SFT and a reward model give the weights of one process; one of them publishes no merged model."""
    trainer = SFT["trainer"] | {"max_steps": 6, "learning_rate": 1e-3, "per_device_train_batch_size": 2}
    halved = trainer | {"per_device_train_batch_size": 1}
    chosen = SFT | {"lora": LORA}
    run(sft, SftSettings, chosen | {"trainer": trainer}, root, "one_sft", model="base")
    unmerged = chosen | {"lora": LORA | {"merge": False}, "trainer": halved}
    launched("sft", unmerged, root, "zero3_sft", zero=3, model="base")
    assert not list((root / "zero3_sft" / "model").glob("*.safetensors"))
    one, two, base = (load_causal_lm(root / name).state_dict() for name in ("one_sft", "zero3_sft", "base"))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    assert max((one[name] - base[name]).abs().max().item() for name in one) > 1e-3

    chosen = HELPFULNESS | {"lora": LORA}
    run(reward, RewardSettings, chosen | {"trainer": trainer}, root, "one_reward", model="one_sft")
    rows = launched("reward", chosen | {"trainer": halved}, root, "zero3_reward", zero=3, model="zero3_sft")
    assert rows
    one, two = (load_reward_model(root / name).state_dict() for name in ("one_reward", "zero3_reward"))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5


@pytest.mark.long
def test_a_killed_run_resumes_under_any_zero_stage(root: Path, tmp_path: Path) -> None:
    """Under the same one, and under another one, for which its checkpoint is converted."""
    trainer = SFT["trainer"] | {"max_steps": 8, "learning_rate": 1e-3, "save_steps": 2}
    chosen = SFT | {"lora": LORA, "trainer": trainer | {"per_device_train_batch_size": 2}}
    run(sft, SftSettings, chosen, root, "undisturbed", model="base")
    halved = trainer | {"per_device_train_batch_size": 1}
    folders = {"model": root / "base", "data": root / "data"}
    out = tmp_path / "out"
    out.mkdir()
    steps: list[int] = []

    def train(zero: int, dies_in_step: int) -> int:
        settings = SftSettings.model_validate(chosen | {"trainer": halved, "deepspeed": zero_file(zero)})
        unhampered = PackedTrainer.training_step

        def counting(trainer: Any, *args: Any) -> Any:
            steps.append(trainer.state.global_step)
            if trainer.state.global_step == dies_in_step:
                raise KeyboardInterrupt
            return unhampered(trainer, *args)

        PackedTrainer.training_step = counting
        with suppress(KeyboardInterrupt):
            sft.run(settings, folders, out)
        return steps[0]

    for zero, first, dies_in_step in ((3, 0, 3), (3, 2, 5), (2, 4, 7), (3, 6, -1)):
        (meeting := tmp_path / str(first)).mkdir()
        assert on_two_deepspeed_ranks(partial(train, zero, dies_in_step), meeting) == [first, first]
    one, two = (load_causal_lm(folder).state_dict() for folder in (root / "undisturbed", out))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5


def test_weights_that_a_killed_save_left_are_not_published(root: Path) -> None:
    (left := root / "again" / "model").mkdir(parents=True)
    shutil.copy(root / "base" / "model.safetensors", left)
    tune(root, "again", 3, LORA)
    one, two = (load_file(folder / "model.safetensors") for folder in (root / "base", left))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_an_artifact_without_a_merged_model(root: Path) -> None:
    """Loading it gives what the merged one has, as a language model and as a reward model."""
    tune(root, "merged", 5, LORA)
    tune(root, "unmerged", 5, LORA | {"merge": False})
    chosen = HELPFULNESS | {"trainer": HELPFULNESS["trainer"] | {"max_steps": 5, "learning_rate": 1e-2}}
    for name in ("merged", "unmerged"):
        lora = LORA | {"merge": name == "merged"}
        run(reward, RewardSettings, chosen | {"lora": lora}, root, f"{name}_reward", model=name)
        run(reward, RewardSettings, chosen, root, f"{name}_whole", model=name)
    assert (root / "merged" / "model" / "model.safetensors").is_file()
    for name in ("unmerged", "unmerged_reward"):
        assert not list((root / name / "model").glob("*.safetensors"))
    for load, kind in (
        (load_causal_lm, ""),
        (load_reward_model, "_reward"),
        (load_reward_model, "_whole"),
        (partial(new_reward_model, seed=7), ""),
    ):
        one, two = (load(root / f"{name}{kind}") for name in ("merged", "unmerged"))
        origin = {"_name_or_path": "", "architectures": []}
        assert one.config.to_dict() | origin == two.config.to_dict() | origin
        states = one.state_dict(), two.state_dict()
        assert states[0].keys() == states[1].keys()
        for name, weight in states[0].items():
            torch.testing.assert_close(weight, states[1][name], rtol=1e-5, atol=1e-6)


def test_the_base_model_is_in_bf16_where_the_run_computes_in_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtypes: dict[bool, set[torch.dtype]] = {}

    def recording(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        for weight in trainer.model.parameters():
            dtypes.setdefault(weight.requires_grad, set()).add(weight.dtype)
        return run_trainer(trainer, *args, **kwargs)

    monkeypatch.setattr("llamita.training.finetune.run_trainer", recording)
    trainer = SFT["trainer"] | {"max_steps": 2, "bf16": True}
    run(sft, SftSettings, SFT | {"lora": LORA, "trainer": trainer}, root, "in_bf16", model="base")
    assert dtypes == {True: {torch.float32}, False: {torch.bfloat16}}
    published = load_file(root / "in_bf16" / "model" / "model.safetensors")
    base = load_file(root / "base" / "model.safetensors")
    assert published["model.norm.weight"].dtype == torch.float32
    assert torch.equal(published["model.embed_tokens.weight"], base["model.embed_tokens.weight"])


# -------------------------------------------------------------------------------------- what can't work


def test_a_reward_model_without_an_adapter(root: Path, tuned: dict[str, Any]) -> None:
    chosen = HELPFULNESS | {"trainer": HELPFULNESS["trainer"] | {"max_steps": 1}}
    run(reward, RewardSettings, chosen, root, "whole", model="sft")
    with pytest.raises(DataError, match="whole has no adapter; with `lora` every input model must"):
        train(root, "failed", {}, helpfulness="whole")


def test_an_adapter_of_another_base(root: Path, tuned: dict[str, Any], tokenizer: Any) -> None:
    save_tiny_model(root / "other", tokenizer, seed=9)
    with pytest.raises(DataError, match=r"helpfulness/adapter: its base model is .*base, not .*other"):
        sample(root, "failed", {}, base="other")


def test_an_adapter_of_another_shape(root: Path, tuned: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"lora: r: 8 differs from 4 in .*adapter, .*; set r: 4"):
        train(root, "failed", {"lora": LORA | {"r": 8}})
    narrow = HELPFULNESS | {"lora": LORA | {"target_modules": ["q_proj"]}}
    with pytest.raises(DataError, match=r"sft/adapter: the adapter belongs to another model: .*k_proj"):
        run(reward, RewardSettings, narrow, root, "narrow", model="sft")


def test_a_base_model_that_has_changed_or_is_missing(
    root: Path, tuned: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("base", "sft"):
        shutil.copytree(root / name, tmp_path / name)
    assert base_model_of(tmp_path / "sft").path == (tmp_path / "base").resolve(), (
        "a run may be moved as a whole"
    )
    (tmp_path / "base" / "note.txt").write_text("not the model's")
    assert base_model_of(tmp_path / "sft")
    config = next((tmp_path / "base").rglob("config.json"))
    config.write_text(config.read_text() + "\n")
    with pytest.raises(DataError, match=r"its base model .* have changed .*; rerun this stage"):
        base_model_of(tmp_path / "sft")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(DataError, match="base is missing; restore it, or train without `lora`"):
        base_model_of(tmp_path / "sft")


# ----------------------------------------------------------------------------------- tied embeddings


def test_an_adapter_of_tied_embeddings(root: Path, tokenizer: Any) -> None:
    """The published model computes what base and adapter do: after a stage, and after PPO."""
    save_tiny_model(root / "tied", tokenizer, spread=0.05, tie_word_embeddings=True)
    GenerationConfig(eos_token_id=[2, 9]).save_pretrained(root / "tied")
    lora = LORA | {"target_modules": ["embed_tokens", "q_proj"]}
    tune(root, "tied_sft", 5, lora, base="tied")
    base = AutoModelForCausalLM.from_pretrained(root / "tied")
    before = logits(base)
    wanted = logits(PeftModel.from_pretrained(base, root / "tied_sft" / "adapter"))
    assert (wanted - before).abs().max() > 0.05

    settings = SftSettings.model_validate(SFT | {"lora": lora}).adapter
    base_model = SharedBaseModel(base_model_of(root / "tied"), settings, bf16=False, partitioned=False)
    policy = base_model.language_model("policy", root / "tied_sft")
    base_model.save("policy", tokenizer, root / "tied_ppo")
    torch.testing.assert_close(logits(policy), wanted, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        decoded = Decoder(copy_weights(policy.activated())).prefill(IDS.tolist(), torch.arange(2), 1)
    torch.testing.assert_close(decoded, wanted[:, -1], rtol=1e-4, atol=1e-4)
    for folder in ("tied_sft", "tied_ppo"):
        published = AutoModelForCausalLM.from_pretrained(root / folder / "model")
        assert not published.config.tie_word_embeddings
        assert published.config.eos_token_id == published.generation_config.eos_token_id == [2, 9]
        torch.testing.assert_close(logits(published), wanted, rtol=1e-4, atol=1e-4)
        going_on = load_trainable(load_causal_lm, root / folder, settings, seed=0)
        torch.testing.assert_close(logits(going_on), wanted, rtol=1e-4, atol=1e-4)
    reward_model = load_trainable(partial(new_reward_model, seed=0), root / "tied_sft", settings, seed=0)
    published = load_causal_lm(root / "tied_sft").eval()
    with torch.no_grad():
        states = [plain(one.eval()).base_model(IDS).last_hidden_state for one in (reward_model, published)]
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-4)


def test_a_new_model_has_no_adapter() -> None:
    with pytest.raises(ValueError, match="lora: a new model has only random weights"):
        PretrainSettings.model_validate(PRETRAIN | {"lora": LORA})
