"""Scores of answers by a reward model, as PPO, rejection sampling and evaluation use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..distributed.device import device
from ..errors import DataError
from .checkpoint import load_reward_model, load_tokenizer, tokenizer_hash
from .scoring import terminal_scores


class Scorer:
    """A reward model read from its folder.

    The score is read at the answer's EOS, by its index: nothing is inferred from pads.

    Args:
        folder: an artifact or a plain `AutoModelForSequenceClassification` folder with one label.
        tokenizer: the policy's; token ids go to the reward model as they are.
        batch_size: answers scored side by side.
        load: reads the reward model from the folder.
        dtype: precision of all but its head.

    Raises:
        DataError: the reward model was trained with another tokenizer (seen before its weights are loaded),
            its folder is incomplete, or it has more than one output.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Any,
        batch_size: int = 128,
        *,
        load: Callable[[Path], Any] = load_reward_model,
        dtype: str = "float32",
    ) -> None:
        if tokenizer_hash(load_tokenizer(folder)) != tokenizer_hash(tokenizer):
            raise DataError(
                f"{folder}: this reward model reads other token ids than the policy writes; "
                "expected one trained with the same tokenizer"
            )
        self.model = load(folder).to(device()).eval()
        if (outputs := self.model.score.out_features) != 1:
            raise DataError(f"{folder}: {outputs} outputs; expected a reward model with one")
        self._folder, self._eos = folder, int(tokenizer.eos_token_id)
        self._batch_size, self._dtype = batch_size, dtype

    def __call__(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], label: str | None = None
    ) -> Tensor:
        """Scores after the sigmoid, `[rows]` float64 in (0, 1), on the CPU; `label` is a progress bar's."""
        return self.raw(prompts, answers, label).double().sigmoid()

    def raw(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], label: str | None = None
    ) -> Tensor:
        """Scores before the sigmoid: `[rows]` fp32 on the CPU.

        Answers come without the token that ended them, if any: the tokenizer's EOS, the only one that reward
        models are trained on, is put behind each.

        Raises LlamitaError, naming the folder, if a score is NaN or infinite.
        """
        rows = [[*prompt, *answer, self._eos] for prompt, answer in zip(prompts, answers, strict=True)]
        return terminal_scores(
            self.model, rows, self._batch_size, dtype=self._dtype, label=label, name=self._folder
        )
