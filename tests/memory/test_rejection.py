"""Phases of rejection sampling, and how reward models are held."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.errors import DataError
from llamita.memory.account import account
from llamita.memory.rejection import rejection
from llamita.memory.sampling import Batch, sampling
from llamita.memory.shape import Shape
from llamita.rlhf.rejection.settings import RejectionSettings
from llamita.training.settings import LoraSettings

from ..helpers.paper_shapes import PAPER
from ..helpers.repository import zero_file

CONFIG = PAPER["7B"]
POLICY, REWARD = Shape.from_config(CONFIG), Shape.from_config(CONFIG, scores=True)
EMBEDDINGS = 32_000 * 4096
SMALL = EMBEDDINGS + (2 * 32 + 1) * 4096 + 4096  # embeddings, norms and head of a reward model


def settings(**values: Any) -> RejectionSettings:
    chosen: dict[str, Any] = {"prompts_per_round": 64, "num_generations": 10, "max_new_tokens": 1024}
    return RejectionSettings.model_construct(**chosen | {"dtype": "bfloat16", "trainer": {}} | values)


def test_rejection_samples_scores_and_trains() -> None:
    chosen = settings(deepspeed=zero_file(2), sampling_cache_tokens=10**6)
    found = rejection(chosen, CONFIG, 8)
    assert list(found) == ["sampling", "scoring", "training"]
    assert found["sampling"].gpu == sampling(POLICY, 2, Batch(80, 3071, 1024))  # 8 prompts, 10 answers each
    assert found["sampling"].host == {"model": 2 * POLICY.parameters}
    assert found["training"] == account(chosen, CONFIG, 8)
    less = rejection(settings(sampling_cache_tokens=16 * 2048, max_prompt_length=1024), CONFIG, 8)
    assert less["sampling"].gpu == sampling(POLICY, 2, Batch(16, 1024, 1024))


def test_an_answer_that_exceeds_the_cache_is_sampled_alone() -> None:
    found = rejection(settings(sampling_cache_tokens=1), CONFIG, 8)
    assert found["sampling"].gpu == sampling(POLICY, 2, Batch(1, 3071, 1024))


@pytest.mark.parametrize(("judge", "models"), [(False, 2), (True, 3)])
def test_reward_models_are_held_as_frozen_models_says(judge: bool, models: int) -> None:
    def scoring(**values: Any) -> Any:
        return rejection(settings(deepspeed=zero_file(3), **values), CONFIG, 8, judge=judge)["scoring"]

    size = 2 * (REWARD.parameters - SMALL) + 4 * SMALL
    whole, offloaded, sharded = (scoring(frozen_models=name) for name in ("whole", "offloaded", "sharded"))
    assert whole.gpu["frozen"] == models * size
    assert scoring(dtype="float32").gpu["frozen"] == models * 4 * REWARD.parameters
    assert (offloaded.gpu["frozen"], offloaded.host) == (size, {"frozen": models * size})
    assert sharded.gpu["frozen"] == pytest.approx(models * 2 * REWARD.parameters / 8, rel=1e-3)
    assert sharded.gpu["gathered"] == 2 * (10**9 + EMBEDDINGS)
    assert sharded.gpu["activations"] < whole.gpu["activations"]  # hidden states are in bf16, too


@pytest.mark.parametrize(("frozen_models", "ranks"), [("whole", 1), ("sharded", 8)])
def test_with_lora_reward_models_share_a_base_model(frozen_models: Any, ranks: int) -> None:
    chosen = settings(lora=LoraSettings(r=8), frozen_models=frozen_models, deepspeed=zero_file(3))
    found = rejection(chosen, CONFIG, 8)["scoring"].gpu
    assert found["base"] == pytest.approx(2 * POLICY.parameters / ranks, rel=1e-3)
    assert found["adapters"] == 2 * 4 * (8 * 32 * (4 * (4096 + 4096) + 3 * (4096 + 11_008)) + 4096)
    assert ("gathered" in found) == (frozen_models == "sharded")
    assert "frozen" not in found


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_position_embeddings": None}, "max_position_embeddings: missing; add it, or set max_prompt"),
        ({"max_position_embeddings": 1025}, "max_new_tokens 1024 leaves no room"),
        ({"model_type": "gpt2"}, "model_type: expected llama"),
    ],
)
def test_a_config_that_does_not_suit(config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rejection(settings(), CONFIG | config, 8)
