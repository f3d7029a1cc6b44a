"""Log-probabilities of answers, computed the same way in sampling, PPO and evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from ..batches import batches_by_length, tokens_at_once
from ..console import track
from ..model.padding import pad_batch
from ..model.special import eos_ids
from .output_layer import OutputLayer, decoder_of, score_tokens


def excluded_pad_id(config: PreTrainedConfig) -> int | None:
    """The pad id, which the policy never samples; None if there is none, or if it is also an EOS."""
    return None if config.pad_token_id in eos_ids(config) else config.pad_token_id


def policy_logprobs(logits: Tensor, pad_token_id: int | None, temperature: float = 1.0) -> Tensor:
    """`[..., vocabulary]` logits of any dtype -> normalised log-probabilities in fp32, -inf for the pad.

    A temperature of 0 (greedy) counts as 1.
    """
    logits = logits.float() / (temperature or 1.0)
    if pad_token_id is not None:
        logits = logits.index_fill(-1, torch.tensor([pad_token_id], device=logits.device), float("-inf"))
    return F.log_softmax(logits, dim=-1)


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
    """Log-probability of each token of each answer (fp32), computed in batches of similar length.

    `label` is the text of a progress bar; None: no progress bar.
    """
    device = next(model.parameters()).device
    layer = OutputLayer.of(model, excluded_pad_id(model.config), temperature)
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    batched_rows = batches_by_length(lengths, batch_size, tokens_at_once(device))
    logprobs: list[list[float]] = [[] for _ in prompts]
    for rows in track(batched_rows, label, len(prompts), unit="answers", amount=len):
        ids, mask = pad_batch([prompts[row] for row in rows], [answers[row] for row in rows])
        ids, mask = ids.to(device), mask.to(device)
        hidden = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][mask]
        values = score_tokens(model, layer, hidden, tokens=ids[:, 1:][mask])[0].cpu()
        for row, answer in zip(rows, values.split([len(answers[row]) for row in rows]), strict=True):
            logprobs[row] = answer.tolist()
    return logprobs
