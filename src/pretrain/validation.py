"""Evaluates the model on held-out text, during training and at its end."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..corpus.corpus import Corpus
from ..distributed.group import all_reduce_sum
from ..processes import rank, world_size
from ..training.tracking import Tracker
from .bits_per_byte import bits_per_byte, model_nats
from .settings import PretrainSettings


class Validation(TrainerCallback):
    """Logs `eval/bits_per_byte` every `eval_steps` steps, if they are set.

    Every rank evaluates its share of the text, with the trainer's own model and in its precision, in batches
    of as many rows as in training: what fits there fits here.

    `size`: bytes of the text, see `counted_bytes`.
    """

    def __init__(
        self,
        trainer: Any,
        corpus: Corpus,
        tracker: Tracker,
        *,
        settings: PretrainSettings,
        size: int,
    ) -> None:
        self._trainer, self._corpus, self._tracker, self._size = trainer, corpus, tracker, size
        self._every, self._length = settings.eval_steps, settings.context_length
        self._isolate_documents = not settings.cross_document_attention

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._every and state.global_step % self._every == 0:
            self._tracker.log({"eval/bits_per_byte": self.bits_per_byte()}, state.global_step)

    def bits_per_byte(self) -> float:
        """Bits per byte of all held-out text; every rank calls it and gets the result."""
        nats = sum(
            model_nats(
                self._trainer.model,
                stream,
                self._length,
                isolate_documents=self._isolate_documents,
                batch=self._trainer.args.per_device_train_batch_size,
                share=rank(),
                shares=world_size(),
            )
            for stream in self._corpus.validation
        )
        total = float(all_reduce_sum(torch.tensor(nats, dtype=torch.float64)))
        return bits_per_byte(total, self._size)
