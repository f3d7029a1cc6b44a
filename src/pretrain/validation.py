"""Evaluates the model on held-out text during training."""

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
    """Logs `eval/bits_per_byte` every `eval_steps` steps; every rank evaluates its share of the text."""

    def __init__(
        self,
        trainer: Any,
        corpus: Corpus,
        tracker: Tracker,
        *,
        settings: PretrainSettings,
        isolate_documents: bool,
    ) -> None:
        self._trainer, self._corpus, self._tracker = trainer, corpus, tracker
        self._every, self._length, self._isolate_documents = (
            settings.eval_steps,
            settings.context_length,
            isolate_documents,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not self._every or state.global_step % self._every:
            return
        nats = sum(
            model_nats(
                self._trainer.model,
                stream,
                self._length,
                isolate_documents=self._isolate_documents,
                share=rank(),
                shares=world_size(),
            )
            for stream in self._corpus.validation
        )
        total = float(all_reduce_sum(torch.tensor(nats, dtype=torch.float64)))
        bits = bits_per_byte(total, self._corpus.counts["validation"]["bytes"])
        self._tracker.log({"eval/bits_per_byte": bits}, state.global_step)
