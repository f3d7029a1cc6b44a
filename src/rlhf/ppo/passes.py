"""Forward passes of policy, reference and critic over an iteration's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...distributed.device import device
from ...model.padding import pad_batch
from ...model.precision import computing_in
from ...sampling.logprobs import gather_logprobs, next_token_distribution
from . import losses
from .reward import kl_penalised_reward
from .rollout import Episodes, MicroBatch
from .settings import PpoSettings


class Passes:
    """Forward passes, all at the sampling temperature and in one precision.

    Args:
        policy, reference: causal language models, or the engines that train them.
        critic: ids `[rows, length]` -> values `[rows, length - 1]`.
        dtype: precision, see `computing_in`.
        pad: the pad id to exclude, see `excluded_pad_id`.
    """

    def __init__(
        self,
        policy: Callable[..., Any],
        reference: Callable[..., Any],
        critic: Callable[[Tensor], Tensor],
        *,
        settings: PpoSettings,
        dtype: str,
        pad: int | None,
    ) -> None:
        self._policy, self._reference, self._critic = policy, reference, critic
        self._settings, self._dtype, self._pad = settings, dtype, pad

    @torch.no_grad()
    def before_update(self, episodes: Episodes, rows: Sequence[int]) -> MicroBatch:
        """The micro-batch of these rows: KL-penalised rewards, advantages (not whitened), returns."""
        ids, mask = pad_batch(
            [episodes.prompts[row] for row in rows], [episodes.answers[row] for row in rows]
        )
        sampled = torch.zeros(mask.shape)
        sampled[mask] = torch.tensor([value for row in rows for value in episodes.logprobs[row]])
        ids, mask, sampled = (tensor.to(device()) for tensor in (ids, mask, sampled))
        distribution = self._distribution(self._policy, ids)
        logprobs = gather_logprobs(distribution, ids)
        ref_logprobs = gather_logprobs(self._distribution(self._reference, ids), ids)
        values = self.values(ids)
        rewards = kl_penalised_reward(
            episodes.whitened_reward[rows].float().to(device()),
            logprobs,
            ref_logprobs,
            mask=mask,
            kl_coef=self._settings.kl_coef,
        )
        advantages, returns = losses.generalised_advantages(
            rewards, values, mask, gamma=self._settings.gamma, lam=self._settings.lam
        )
        return MicroBatch(
            ids=ids,
            mask=mask,
            sampled_logprobs=sampled,
            old_logprobs=logprobs,
            ref_logprobs=ref_logprobs,
            old_values=values,
            advantages=advantages,
            returns=returns,
            entropy=losses.entropy(distribution, mask),
        )

    def logprobs(self, ids: Tensor) -> Tensor:
        """The policy's log-probabilities `[rows, length - 1]` of ids `[rows, length]`, with gradient."""
        return gather_logprobs(self._distribution(self._policy, ids), ids)

    def values(self, ids: Tensor) -> Tensor:
        """The critic's values `[rows, length - 1]` of ids `[rows, length]`."""
        with computing_in(self._dtype, ids.device):
            return self._critic(ids)

    def _distribution(self, model: Callable[..., Any], ids: Tensor) -> Tensor:
        with computing_in(self._dtype, ids.device):
            return next_token_distribution(model, ids, self._pad, temperature=self._settings.temperature)
