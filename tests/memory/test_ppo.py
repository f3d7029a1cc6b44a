"""Phases of PPO and their parts, by settings; real ranks are in test_ppo_states.py."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.deepspeed_file import DeepSpeedFile
from llamita.memory.account import Account
from llamita.memory.engine import Engine
from llamita.memory.moments import held
from llamita.memory.ppo import ppo
from llamita.memory.sampling import Batch, sampling
from llamita.memory.shape import Shape
from llamita.memory.states import Trained
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.sampling.settings import VllmEngine
from llamita.training.settings import LoraSettings

from ..helpers.paper_shapes import PAPER
from ..helpers.repository import zero_file

CONFIG, GB = PAPER["7B"], 10**9
POLICY, CRITIC = Shape.from_config(CONFIG), Shape.from_config(CONFIG, scores=True)
PARAMETERS = POLICY.parameters
STATES = ("weights", "gradients", "optimizer")


def of(ranks: int = 8, *, judge: bool = False, **values: Any) -> dict[str, Account]:
    chosen: dict[str, Any] = {"max_prompt_length": 1024, "max_new_tokens": 1024, "dtype": "bfloat16"}
    chosen |= {"deepspeed": zero_file(2), "gradient_checkpointing": True} | values
    return ppo(PpoSettings.model_construct(**chosen), CONFIG, ranks, judge=judge)


def engine(stage: int, shape: Shape, ranks: int = 8) -> Engine:
    return Engine.of_file(DeepSpeedFile.read(zero_file(stage)).content, shape, ranks, bf16=True)


def test_phases() -> None:
    phases = ["sampling", "scoring", "passes", "policy", "critic", "publishing"]
    assert list(of()) == phases
    servers = VllmEngine(engine="vllm", urls=["http://node7:8000"])
    assert list(of(sampler=servers)) == phases[1:]
    assert of(sampler=servers) == {name: found for name, found in of().items() if name != "sampling"}


@pytest.mark.parametrize("stage", [2, 3])
def test_a_step_of_one_engine_holds_the_states_of_both(stage: int) -> None:
    """Between its steps an engine under ZeRO-2 has no gradients; under ZeRO-3 it keeps their place."""
    found = of(deepspeed=zero_file(stage))
    for name, other, shape, rest in (
        ("policy", "critic", POLICY, CRITIC),
        ("critic", "policy", CRITIC, POLICY),
    ):
        gpu = found[name].gpu
        taking_steps, _ = held(Trained.whole(shape), engine(stage, shape))
        waiting, _ = held(Trained.whole(rest), engine(stage, rest), waiting=True)
        assert {part: gpu[f"{name} {part}"] for part in STATES} == taking_steps
        assert {part: gpu.get(f"{other} {part}", 0) for part in STATES} == waiting
        assert (waiting["gradients"] > 0) == (stage == 3)


def test_what_the_policy_has_gathered_without_gradients_may_remain() -> None:
    found = of(deepspeed=zero_file(3))
    once = 2 * (10**9 + 32_000 * 4096)
    assert [found[name].gpu["gathered"] for name in ("passes", "policy", "critic")] == [
        2 * once,
        once,
        2 * once,
    ]


def test_the_critic_has_its_own_file() -> None:
    found = of(critic_deepspeed=zero_file(3))["policy"].gpu
    assert found["policy weights"] == 2 * PARAMETERS
    assert found["critic weights"] == pytest.approx(2 * CRITIC.parameters / 8, rel=1e-3)
    assert of(deepspeed=zero_file(3))["critic"].gpu["critic weights"] == found["critic weights"]


def test_sampling_adds_whole_weights_and_a_cache() -> None:
    found = of(deepspeed=zero_file(3), sampling_cache_tokens=16 * 2048)
    added = sampling(POLICY, 2, Batch(16, 1024, 1024))
    gpu = found["sampling"].gpu
    assert {part: gpu[part] for part in added} == added
    assert not {"sampler", "cache"} & found["policy"].gpu.keys()
    few = of(episodes=16, sampling_cache_tokens=16 * 2048)["sampling"].gpu  # 2 on each rank
    assert few["cache"] == sampling(POLICY, 2, Batch(2, 1024, 1024))["cache"]


def test_models_that_are_not_trained() -> None:
    """The reference is in bf16, as the policy; reward models have embeddings, norms and head in fp32."""
    small = 32_000 * 4096 + (2 * 32 + 2) * 4096
    reward = 2 * CRITIC.parameters + 2 * small
    for judge, models in ((False, 2), (True, 3)):
        whole = 2 * PARAMETERS + models * reward
        assert of(judge=judge)["policy"].gpu["frozen"] == whole
        offloaded = of(judge=judge, frozen_models="offloaded")
        assert all(found.host["frozen"] == whole for found in offloaded.values())
        on_gpu = {name: found.gpu.get("frozen", 0) for name, found in offloaded.items()}
        assert on_gpu == dict.fromkeys(on_gpu, 0) | {"scoring": reward, "passes": 2 * PARAMETERS}
    sharded = of(frozen_models="sharded")
    expected = 2 * (PARAMETERS + 2 * CRITIC.parameters) / 8
    assert sharded["policy"].gpu["frozen"] == pytest.approx(expected, rel=1e-3)
    assert {name for name, found in sharded.items() if "gathered" in found.gpu} == {"scoring", "passes"}


def test_micro_batches_have_a_maximum_of_tokens() -> None:
    """A mini-batch of 64 answers gives each of 8 ranks 8 rows of 2,048 tokens."""
    rows = {"rows": of(), "two": of(micro_batch_size=2), "tokens": of(max_tokens_per_micro_batch=4096)}
    sizes = {name: found["policy"].gpu["activations"] for name, found in rows.items()}
    assert sizes["two"] == sizes["tokens"] == sizes["rows"] // 4
    more = of(max_tokens_per_micro_batch=6000)["policy"].gpu["activations"]  # of rows that are shorter
    assert more == pytest.approx(sizes["two"] * 6000 / 4096)


def test_checkpointing_saves_only_the_inputs_of_layers() -> None:
    with_it, without = (of(gradient_checkpointing=value, micro_batch_size=2) for value in (True, False))
    for name in ("policy", "critic"):
        assert with_it[name].gpu["activations"] < 0.1 * without[name].gpu["activations"]
    assert with_it["passes"] == without["passes"]


def test_plain_torch_holds_all_states_in_fp32() -> None:
    gpu = of(1, deepspeed=None)["policy"].gpu
    assert sum(gpu[f"policy {part}"] for part in STATES) == 16 * PARAMETERS
    assert "critic gradients" not in gpu
    assert (
        of(2, deepspeed=None)["policy"].gpu["buffers"] == gpu["buffers"]
    )  # no buckets: PPO sums them itself
    evaluated = of(1, deepspeed=None, micro_batch_size=1)["passes"].gpu["activations"]
    assert evaluated < 2 * POLICY.layer_matrices * POLICY.num_hidden_layers, "autocast caches no copies"
    assert of(1, deepspeed=None)["sampling"].gpu["sampler"] == 2 * PARAMETERS
    assert of(1, deepspeed=None, dtype="float32")["sampling"].gpu["sampler"] == 4 * PARAMETERS


def test_adapters_share_one_base_model() -> None:
    lora = LoraSettings(r=8)
    adapter = 8 * 32 * (4 * (4096 + 4096) + 3 * (4096 + 11_008))
    found = of(lora=lora)
    gpu = found["policy"].gpu
    assert gpu["base"] == 2 * PARAMETERS
    assert gpu["policy weights"] == 2 * adapter
    assert gpu["adapters"] == 2 * adapter + 2 * 4 * (adapter + 4096)  # of the reference and two reward models
    assert "frozen" not in gpu
    assert found["sampling"].gpu["sampler"] == 2 * PARAMETERS
    assert found["publishing"].host["published"] == 4 * (PARAMETERS + adapter)
    assert of(lora=LoraSettings(r=8, merge=False))["publishing"].host["published"] == 0


@pytest.mark.parametrize("changes", [{"deepspeed": zero_file(3)}, {"frozen_models": "sharded"}])
def test_a_partitioned_base_model_is_gathered_in_every_pass(changes: dict[str, Any]) -> None:
    found = of(lora=LoraSettings(r=8), **changes)
    assert found["policy"].gpu["base"] == pytest.approx(2 * PARAMETERS / 8, rel=1e-3)
    assert found["policy"].gpu["policy weights"] == of(lora=LoraSettings(r=8))["policy"].gpu["policy weights"]
    gathered = {name for name, account in found.items() if "gathered" in account.gpu}
    assert gathered == {"scoring", "passes", "policy", "critic"}


def test_offloaded_states_are_on_the_host() -> None:
    found = of(deepspeed=zero_file("3_offload"), frozen_models="offloaded")["policy"]
    assert not {f"policy {part}" for part in STATES} & found.gpu.keys()
    assert {f"{name} {part}" for name in ("policy", "critic") for part in STATES} <= found.host.keys()
    assert found.host["policy optimizer"] == pytest.approx(12 * PARAMETERS / 8, rel=1e-3)


def test_zero_2_accumulates_offloaded_gradients_on_the_gpu_while_the_model_is_updated() -> None:
    """In fp32; sums in the precision of the weights are in the host's memory all the time."""
    found = of(deepspeed=zero_file("2_offload"))
    share = -(-4 * PARAMETERS // 8)
    on_gpu = {name: account.gpu.get("policy gradients", 0) for name, account in found.items()}
    assert on_gpu == dict.fromkeys(found, 0) | {"policy": share}
    assert not any("policy gradients" in account.host for account in found.values())
    for name in ("policy", "critic"):
        gradients = found[name].host[f"{name} buffers"]
        assert gradients > 4 * PARAMETERS / 8 * 0.97, "those that the optimizer reads"
    sums_in_bf16 = Engine(8, 2, "bf16", fp32_sums=False, offload_optimizer=True)
    for waiting in (False, True):
        gpu, host = held(Trained.whole(POLICY), sums_in_bf16, waiting=waiting)
        assert ("gradients" in gpu, "gradients" in host) == (False, True)


def test_the_policy_is_published_by_one_rank() -> None:
    assert of()["publishing"].host == {"published": 2 * PARAMETERS}
    assert of(deepspeed=zero_file(3))["publishing"].host == {"published": 5 * 2**30}
