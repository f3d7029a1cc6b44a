"""Log-probabilities of answers: the policy's own distribution, the same in sampling, PPO and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from ..batches import batches_by_length, tokens_at_once
from ..console import track
from ..model.padding import pad_batch
from ..model.special import eos_ids


def excluded_pad_id(config: PreTrainedConfig) -> int | None:
    """The pad id, which is no part of the policy's vocabulary; None if there is none, or if it is the EOS."""
    return None if config.pad_token_id in eos_ids(config) else config.pad_token_id


def policy_logprobs(logits: Tensor, pad_token_id: int | None, temperature: float = 1.0) -> Tensor:
    """`[..., vocabulary]` logits of any dtype -> normalised log-probabilities in fp32, the pad at -inf.

    A temperature of 0 (greedy) leaves the distribution as it is.
    """
    logits = logits.float() / (temperature or 1.0)
    if pad_token_id is not None:
        logits = logits.index_fill(-1, torch.tensor([pad_token_id], device=logits.device), float("-inf"))
    return F.log_softmax(logits, dim=-1)


def next_token_distribution(
    model: Callable[..., Any], ids: Tensor, pad_token_id: int | None, *, temperature: float = 1.0
) -> Tensor:
    """What the policy expects after each token of right-padded rows; the gradient flows.

    No attention mask is needed: attention is causal and pads stand on the right.

    Args:
        model: a causal language model, or an engine around one.
        ids: `[rows, length]` int64.
        pad_token_id: see `excluded_pad_id`.

    Returns:
        `[rows, length - 1, vocabulary]` fp32 log-probabilities of the tokens from the second on.
    """
    return policy_logprobs(model(input_ids=ids, use_cache=False).logits[:, :-1], pad_token_id, temperature)


def gather_logprobs(distribution: Tensor, ids: Tensor) -> Tensor:
    """`[rows, length - 1]`: at `t` the log-probability of token `t + 1`. Values at pads mean nothing."""
    return distribution.gather(-1, ids[:, 1:, None]).squeeze(-1)


@torch.no_grad()
def answer_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    batch_size: int = 64,
    label: str | None = None,
) -> list[list[float]]:
    """Log-probability of each token of each answer (fp32), in batches of similar length.

    `label`: of a progress bar; None shows none.
    """
    device, head = next(model.parameters()).device, model.get_output_embeddings()
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    dealt = batches_by_length(lengths, batch_size, tokens_at_once(device))
    found: list[list[float]] = [[] for _ in prompts]
    for rows in track(dealt, label, len(prompts), unit="answers", amount=len):
        ids, mask = pad_batch([prompts[row] for row in rows], [answers[row] for row in rows])
        ids, mask = ids.to(device), mask.to(device)
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][mask]
        logits = head(hidden)  # of answers only: prompts are often the longer part, and a vocabulary is wide
        distribution = policy_logprobs(logits, excluded_pad_id(model.config), temperature)
        logprobs = distribution.gather(-1, ids[:, 1:][mask][:, None]).squeeze(-1).cpu()
        for row, values in zip(rows, logprobs.split([len(answers[row]) for row in rows]), strict=True):
            found[row] = values.tolist()
    return found
