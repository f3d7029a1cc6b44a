"""Scores answers with a reward model, for PPO, rejection sampling and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from ..distributed.device import device
from ..errors import DataError
from .checkpoint import load_reward_model, load_tokenizer, tokenizer_hash
from .frozen import Offloaded
from .precision import store_in
from .scoring import terminal_scores


def check_same_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Raises DataError for a reward model that was trained with another tokenizer than the policy's."""
    if tokenizer_hash(load_tokenizer(folder)) != tokenizer_hash(tokenizer):
        raise DataError(
            f"{folder}: the reward model's tokenizer differs from the policy's; expected a reward model "
            "that was trained with the same tokenizer"
        )


class Scorer:
    """A reward model.

    The score is read at the index of the answer's EOS; pads have no influence.

    Args:
        folder: an artifact or an `AutoModelForSequenceClassification` folder with one label.
        tokenizer: the policy's tokenizer, whose ids the reward model reads.
        batch_size: maximum number of answers per forward pass.
        load: loads the reward model from the folder.
        dtype: precision of all layers except the head; matrices are stored in it, see `store_in`.
        offloaded: whether the weights are in the host's memory while no answers are scored; changes no score.

    Raises:
        DataError: the reward model was trained with another tokenizer (checked before its weights are
            loaded), its folder is incomplete, or it has more than one output.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Any,
        batch_size: int = 128,
        *,
        load: Callable[[Path], Any] = load_reward_model,
        dtype: str = "float32",
        offloaded: bool = False,
    ) -> None:
        check_same_tokenizer(folder, tokenizer)
        self.model = load(folder).eval()
        if (outputs := self.model.score.out_features) != 1:
            raise DataError(f"{folder}: the model has {outputs} outputs; expected a reward model with one")
        self._folder, self._eos = folder, int(tokenizer.eos_token_id)
        self._batch_size, self._dtype = batch_size, dtype
        store_in(dtype, self.model)
        self._offloaded = Offloaded(self.model) if offloaded else None
        if not offloaded:
            self.model.to(device())

    def __call__(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], label: str | None = None
    ) -> Tensor:
        """Returns scores after the sigmoid, `[rows]` float64 in (0, 1) on the CPU; `label` as in `raw`."""
        return self.raw(prompts, answers, label).double().sigmoid()

    def raw(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], label: str | None = None
    ) -> Tensor:
        """Returns scores before the sigmoid: `[rows]` fp32 on the CPU.

        Answers must not include their final EOS; the tokenizer's EOS, the only end that reward models are
        trained on, is appended to each. `label`: label of the progress bar, None shows none.

        Raises LlamitaError, naming the folder, if a score is NaN or infinite.
        """
        rows = [[*prompt, *answer, self._eos] for prompt, answer in zip(prompts, answers, strict=True)]
        with self._offloaded.on_device() if self._offloaded else nullcontext():
            return terminal_scores(
                self.model, rows, self._batch_size, dtype=self._dtype, label=label, name=self._folder
            )
