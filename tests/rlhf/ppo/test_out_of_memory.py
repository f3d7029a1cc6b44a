"""Messages of errors when memory runs out."""

from __future__ import annotations

import pytest
import torch

from llamita.errors import LlamitaError
from llamita.processes import phase
from llamita.rlhf.ppo.out_of_memory import advice, explained

from ...helpers.ppo_trainer import trainer
from ...helpers.rlhf import ppo


def test_advice_fits_the_phase_and_the_settings() -> None:
    chosen = ppo(sampling_cache_tokens=64, micro_batch_size=2)
    assert advice(chosen, "sampling")[0] == "sampling_cache_tokens: 32"
    assert advice(chosen, "sampling")[1] == "sampler: {engine: vllm, …}, servers on other GPUs"
    assert not any("max_tokens" in change for change in advice(chosen, "sampling"))
    servers = ppo(sampler={"engine": "vllm", "urls": ["http://node7:8000"]})
    assert not any("sampl" in change for change in advice(servers, "sampling"))
    assert advice(chosen, "updating")[:2] == [
        "max_tokens_per_micro_batch",
        "gradient_checkpointing: true",
    ]
    assert not any("vllm" in change for change in advice(chosen, "updating"))
    assert "frozen_models: offloaded" in advice(chosen, "scoring")
    small = ppo(
        micro_batch_size=1,
        gradient_checkpointing=True,
        dtype="bfloat16",
        deepspeed="zero.json",
        frozen_models="sharded",
    )
    assert advice(small, "updating") == [
        "a higher ZeRO stage in the file of deepspeed",
        "lora, which trains adapters on one shared model",
        "a lower max_new_tokens or max_prompt_length",
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nsecond line"),
        RuntimeError("NCCL error: Failed to CUDA calloc, out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_what_ran_out_of_memory_is_named(error: RuntimeError) -> None:
    with pytest.raises(LlamitaError) as raised, explained(ppo(), "PPO"), phase("scoring"):
        raise error
    text = str(raised.value)
    assert text.startswith("out of memory in PPO (scoring")
    assert "memory" in text.split(")", 1)[1]
    assert "second line" not in text
    assert raised.value.__cause__ is error


def test_the_copy_of_the_weights_is_part_of_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(sampling_cache_tokens=64)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(one._sampler, "sync", full)
    with (
        pytest.raises(LlamitaError, match=r"\(sampling.*sampler: \{engine: vllm"),
        explained(one.settings, "PPO"),
    ):
        one.iterate(1)


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained(ppo(), "PPO"):
        raise RuntimeError("shapes differ")
