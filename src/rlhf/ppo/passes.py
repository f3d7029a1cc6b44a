"""Forward passes of policy, reference and critic over an iteration's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...distributed.device import device
from ...model.padding import pad_batch
from ...model.precision import computing_in
from . import losses
from .reward import kl_penalised_reward
from .rollout import Episodes, MicroBatch
from .settings import PpoSettings


class Passes:
    """Forward passes, all at the sampling temperature and in one precision.

    Args:
        policy, reference: of the class `Policy`, or engines around it.
        critic: ids `[rows, length]` -> values `[rows, length - 1]`.
        dtype: precision, see `computing_in`.
    """

    def __init__(
        self,
        policy: Callable[..., Any],
        reference: Callable[..., Any],
        critic: Callable[[Tensor], Tensor],
        *,
        settings: PpoSettings,
        dtype: str,
    ) -> None:
        self._policy, self._reference, self._critic = policy, reference, critic
        self._settings, self._dtype = settings, dtype

    @torch.no_grad()
    def before_update(self, episodes: Episodes, rows: Sequence[int]) -> MicroBatch:
        """The micro-batch of these rows: KL-penalised rewards, advantages (not whitened), returns."""
        ids, mask = pad_batch(
            [episodes.prompts[row] for row in rows], [episodes.answers[row] for row in rows]
        )
        sampled = torch.zeros(mask.shape)
        sampled[mask] = torch.tensor([value for row in rows for value in episodes.logprobs[row]])
        places = mask.flatten().nonzero().squeeze(1)
        ids, mask, places, sampled = (tensor.to(device()) for tensor in (ids, mask, places, sampled))
        with computing_in(self._dtype, ids.device):
            logprobs, entropies = self._policy(ids, places)
            ref_logprobs, _ = self._reference(ids, places)
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
            places=places,
            sampled_logprobs=sampled,
            old_logprobs=logprobs,
            ref_logprobs=ref_logprobs,
            old_values=values,
            advantages=advantages,
            returns=returns,
            entropy=entropies.sum(),
        )

    def logprobs(self, batch: MicroBatch) -> Tensor:
        """The policy's log-probabilities `[rows, time]` of answer tokens, with gradient; elsewhere 0."""
        with computing_in(self._dtype, batch.ids.device):
            logprobs: Tensor = self._policy(batch.ids, batch.places)[0]
        return logprobs

    def values(self, ids: Tensor) -> Tensor:
        """The critic's values `[rows, length - 1]` of ids `[rows, length]`."""
        with computing_in(self._dtype, ids.device):
            return self._critic(ids)
