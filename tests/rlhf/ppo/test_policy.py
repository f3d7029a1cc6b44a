"""The policy's log-probabilities and entropies, against the model's own forward pass."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamita.model import lora
from llamita.model.padding import pad_batch
from llamita.model.precision import computing_in
from llamita.rlhf.ppo.checkpointing import checkpoint_layers
from llamita.rlhf.ppo.policy import Policy
from llamita.rlhf.shared_base import AdaptedLanguageModel, SharedBaseModel
from llamita.sampling import output_layer

from ...helpers.peak_memory import Bytes
from ...helpers.tiny import tiny_model
from ...helpers.two_ranks import on_two_deepspeed_ranks

TEMPERATURE = 1.3
PROMPTS = [[1, 5, 6], [1, 9, 8, 7, 6, 5, 4], [1]]
ANSWERS = [[7, 8, 9, 10, 2], [11, 2], [12, 13, 14]]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_layer, "_PART", 70)  # seven tokens of the vocabulary for ten answer tokens


def batch() -> tuple[Tensor, Tensor, Tensor]:
    ids, mask = pad_batch(PROMPTS, ANSWERS)
    return ids, mask, mask.flatten().nonzero().squeeze(1)


def own(model: Any, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """From the whole table of logits."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float() / TEMPERATURE
    table = logits.index_fill(-1, torch.tensor([0]), -torch.inf).log_softmax(-1)
    entropies = torch.special.entr(table.exp()).sum(-1)
    chosen = table.gather(-1, ids[:, 1:, None]).squeeze(-1)
    return chosen.masked_fill(~mask, 0.0), entropies.masked_fill(~mask, 0.0).detach()


def assert_equal_to_its_own(model: Any, *, accuracy: float = 1e-5) -> None:
    """Values and gradients of all trained weights."""
    ids, mask, places = batch()
    policy = Policy(model, TEMPERATURE)
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    found, expected = policy(ids, places), own(model, ids, mask)
    assert not found[1].requires_grad
    torch.testing.assert_close(found, expected, atol=accuracy, rtol=accuracy)
    factors = torch.linspace(-1, 2, mask.numel()).view(mask.shape)
    sums = [(logprobs * factors).sum() for logprobs, _ in (found, expected)]
    for one, other in zip(*(torch.autograd.grad(total, weights) for total in sums), strict=True):
        torch.testing.assert_close(one, other, atol=10 * accuracy, rtol=10 * accuracy)


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied embeddings"])
def test_values_and_gradients_are_those_of_the_models_own_forward(tied: bool) -> None:
    assert_equal_to_its_own(tiny_model(tie_word_embeddings=tied))
    checkpointed = tiny_model(tie_word_embeddings=tied)
    checkpoint_layers(checkpointed)
    assert_equal_to_its_own(checkpointed)


def shared_base() -> SharedBaseModel:
    """With adapters `policy`, trained, and `reference`, whose weights are random."""
    shared = SharedBaseModel.__new__(SharedBaseModel)  # its folders are another test's subject
    shared.model, shared._root = tiny_model().requires_grad_(False), None
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    shared._adapted = shared.model
    for name in ("policy", "reference"):
        shared._adapted = lora.add_adapter(shared._adapted, name, settings)
    shared._adapted.requires_grad_(False)
    torch.manual_seed(3)
    for name in ("policy", "reference"):
        for weight in shared.weights(name):
            torch.nn.init.normal_(weight, std=0.2)
    return shared


def test_adapters_of_a_shared_base_model() -> None:
    pytest.importorskip("peft")
    shared = shared_base()
    policy, reference = (AdaptedLanguageModel(shared, name) for name in ("policy", "reference"))
    policy.train_adapter()
    assert_equal_to_its_own(policy)
    ids, _, places = batch()
    both = [Policy(model, TEMPERATURE)(ids, places)[0] for model in (policy, reference, policy)]
    assert torch.equal(both[0], both[2])
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_half_precision() -> None:
    ids, mask, places = batch()
    model = tiny_model()
    with computing_in("bfloat16", "cpu"):
        found, expected = Policy(model, TEMPERATURE)(ids, places), own(model, ids, mask)
    exact = own(model, ids, mask)
    assert not torch.equal(found[0], exact[0])
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


def peak(prompt: int, vocabulary: int, work: Callable[[Any, Tensor, Tensor, Tensor], Tensor]) -> int:
    """Bytes at most in both passes of two rows whose answers have 8 tokens."""
    torch.manual_seed(0)
    ids, mask = pad_batch([[1] + [5] * (prompt - 1)] * 2, [[7] * 8] * 2)
    model = tiny_model(
        vocab_size=vocabulary, hidden_size=8, intermediate_size=8, max_position_embeddings=1024
    )
    places = mask.flatten().nonzero().squeeze(1)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    gradients = [weight.grad for weight in model.parameters()]
    with Bytes([*model.parameters(), *model.buffers(), *gradients, ids, mask, places]) as counted:
        work(model, ids, mask, places).sum().backward()
    return counted.peak


def test_memory_does_not_grow_with_prompt_tokens_times_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_layer, "_PART", 2**12)

    def ours(model: Any, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        logprobs: Tensor = Policy(model, TEMPERATURE)(ids, places)[0]
        return logprobs

    def theirs(model: Any, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        return own(model, ids, mask)[0]

    def growth(work: Callable[..., Tensor]) -> int:
        """Bytes a token of the prompts more with 2,000 tokens of vocabulary than with 1,000."""
        by_vocabulary = [peak(400, size, work) - peak(100, size, work) for size in (2_000, 1_000)]
        return (by_vocabulary[0] - by_vocabulary[1]) // 600

    assert growth(theirs) > 1_000 * 4
    assert growth(ours) < 4


@pytest.mark.long
def test_partitioned_weights_learn_what_whole_ones_learn(tmp_path: Path) -> None:
    """Two ranks under ZeRO-3, each with its own rows, against one process with all rows."""

    def made() -> Policy:
        model = tiny_model(tie_word_embeddings=True)
        checkpoint_layers(model)
        return Policy(model, TEMPERATURE)

    def rows(step: int, rank: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(2 * step + rank)
        _, _, places = batch()
        return torch.randint(3, 29, (3, 9), generator=draw), places

    def on_a_rank() -> list[Tensor]:
        import deepspeed

        policy, rank = made(), int(os.environ["RANK"])
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_clipping": 1e9,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        }
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
        engine, *_ = deepspeed.initialize(
            model=policy, optimizer=optimizer, config=config, dist_init_required=False
        )
        engine.eval()
        for step in range(3):
            with torch.no_grad():
                before = engine(*rows(step, rank))[0]
            logprobs = engine(*rows(step, rank))[0]
            assert torch.equal(logprobs, before)
            engine.backward(logprobs.mean())
            engine.step()
        weights = []
        for weight in policy.parameters():
            assert weight.numel() == 0
            with deepspeed.zero.GatheredParameters([weight]):
                weights.append(weight.detach().clone())
        return weights

    alone = made()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    before = [weight.detach().clone() for weight in alone.parameters()]
    for step in range(3):
        sum(alone(*rows(step, rank))[0].mean() / 2 for rank in range(2)).backward()
        optimizer.step()
        optimizer.zero_grad()
    for found in on_two_deepspeed_ranks(on_a_rank, tmp_path):
        for weight, expected, start in zip(found, alone.parameters(), before, strict=True):
            torch.testing.assert_close(weight, expected.detach(), atol=1e-6, rtol=1e-5)
            assert not torch.equal(expected, start)
