"""Bytes of tensors while code runs; those of a Llama's passes on tensors without storage, of any size."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llamita.pretrain.bits_per_byte import total_nats
from llamita.rlhf.ppo.policy import Policy
from llamita.sampling import output_layer
from llamita.sampling.output_layer import OutputLayer

NO_MASK = "sdpa_without_mask"  # transformers cannot see in a tensor without storage that no mask is needed


class Passes(NamedTuple):
    """Bytes besides weights and their gradients: when the backward pass begins, and at most in both passes;
    at most in a forward pass without gradients."""

    stored: int
    peak: int
    evaluation: int


class Bytes(TorchDispatchMode):
    """Counts the bytes of all storages that are created and not yet freed."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._kept = [tensor.untyped_storage() for tensor in known]
        self._sizes = {id(storage): 0 for storage in self._kept}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._add(result.untyped_storage())
        self.peak = max(self.peak, self.now)
        return results

    def _add(self, storage: Any) -> None:
        if id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._remove, id(storage))

    def _remove(self, place: int) -> None:
        self.now -= self._sizes.pop(place)


def passes(
    config: dict[str, Any],
    tokens: int,
    *,
    loss: str,
    precision: str,
    checkpointing: bool,
    caches_copies: bool = True,
) -> Passes:
    """Runs both passes of a Llama on one row, as the stages do, and counts.

    The names of all options are those of `llamita.memory`. Every weight has a gradient before.
    """
    from accelerate.utils.operations import convert_outputs_to_fp32
    from trl.trainer.utils import add_fused_lm_head

    AttentionInterface.register(NO_MASK, sdpa_attention_forward)
    AttentionMaskInterface.register(NO_MASK, lambda *_, **__: None)
    kind = LlamaForSequenceClassification if loss == "scores" else LlamaForCausalLM
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    options = {"num_labels": 1, "pad_token_id": 0} if loss == "scores" else {}
    on_gpu = patch.object(output_layer, "_PART_ON_CPU", output_layer._PART)  # logits at a time
    with FakeTensorMode(), on_gpu:
        model = kind._from_config(LlamaConfig(**config, **options), dtype=dtype)
        model.set_attn_implementation(NO_MASK)
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        ids = torch.zeros(1, tokens, dtype=torch.long)
        if loss == "chunked":
            add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        forward = _policy(model).forward if loss == "answers" else model.forward
        if precision == "autocast":
            autocast = torch.autocast("cpu", torch.bfloat16, cache_enabled=caches_copies)
            forward = convert_outputs_to_fp32(autocast(forward))
        gradients = [parameter.grad for parameter in model.parameters()]
        tensors: list[Any] = [*model.parameters(), *model.buffers(), *gradients, ids]
        with Bytes(tensors) as counted:
            value = _loss(forward, ids, loss)
            stored = counted.now
            value.backward()
            del value
            trained = counted.peak
            counted.peak = counted.now
            before = counted.now
            if loss != "chunked":
                model.eval()
                _evaluate(forward, ids, loss)
    return Passes(stored, trained, counted.peak - before)


@torch.no_grad()
def _evaluate(forward: Any, ids: Tensor, loss: str) -> None:
    """As `pretrain.bits_per_byte.model_nats` and `model.scoring.shared_scores`."""
    if loss == "answers":
        forward(ids, _answers(ids))
        return
    logits = forward(input_ids=ids, use_cache=False)["logits"]
    if loss == "whole":
        total_nats(logits.flatten(0, 1), ids.flatten())
    else:
        logits.squeeze(-1).float()


def _loss(forward: Any, ids: Tensor, loss: str) -> Any:
    if loss == "whole":
        return forward(input_ids=ids, labels=ids, use_cache=False)["loss"]
    if loss == "answers":
        return forward(ids, _answers(ids))[0].mean()
    if loss == "chunked":
        return -forward(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.mean()
    return forward(input_ids=ids, use_cache=False)["logits"].float().mean()


def _policy(model: Any) -> Policy:
    """A policy that has not looked at the model's logits, which tensors without storage do not have."""
    with patch.object(OutputLayer, "of", return_value=OutputLayer(1.0, None, 1.0, None)):
        return Policy(model, 1.0)


def _answers(ids: Tensor) -> Tensor:
    """Places of the second half of the tokens."""
    return torch.arange(ids.shape[1] // 2, ids.shape[1] - 1)
