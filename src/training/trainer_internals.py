"""The only module that uses private names of transformers' and trl's `Trainer`; it gives them public names.

There is no public interface for any of this:

- `_init_training_state` (extended) finds the position in the data where a run starts. Ours also passes it to
  our own batches, and takes `save_steps` and `logging_steps` from this run instead of the checkpoint. After a
  checkpoint of the last step it skips all epochs: transformers would take one more step.
- `_save_checkpoint` (wrapped) and `_get_output_dir` (replaced): transformers writes a checkpoint directly
  under its final name, without checksums. Our `save_checkpoint` decides whether and where to save.
- `_set_signature_columns_if_needed`, `_signature_columns` (replaced): the columns of the data set that the
  collator gets. trl's trainers expect columns of their own.
- `_tr_loss`, `_total_loss_scalar`, `_globalstep_last_logged`, `_initial_global_step` (read and set): the sums
  from which losses are logged, which transformers' checkpoints don't contain.

A test fails if a release renames one of them, or if another module uses a private name of `Trainer`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Trainer

from ..model.saving import quiet


class TrainerInternals(Trainer):
    """Mixed into a Trainer class: gives its private hooks public names, for subclasses to override."""

    columns: ClassVar[list[str] | None] = None
    """columns of the data set that the collator gets; None: those that the Trainer class expects"""

    def __init__(self, **options: Any) -> None:
        self.checkpoint_parent: Path | None = None  # set while a checkpoint is written
        super().__init__(**options)

    def start_at(self, epoch: int, batches: int) -> None:
        """Called before training with the position in the data: `batches` of `epoch` are already trained."""

    def save_checkpoint(self, write: Callable[[Path], None]) -> None:
        """Called on every rank after each step after which a checkpoint is due.

        `write` writes it into a folder, which must be named as transformers names checkpoints.
        """
        raise NotImplementedError

    @property
    def loss_since_logged(self) -> Tensor:
        """Sum of this rank's losses of the steps since the last logged row: a scalar on its device."""
        total: Tensor = self._tr_loss
        return total

    def loss_sums(self) -> dict[str, float]:
        """The sums from which this rank's losses are logged."""
        return {
            "loss_since_logged": float(self._tr_loss),
            "loss_until_logged": self._total_loss_scalar,
            "step_logged": self._globalstep_last_logged,
        }

    def restore_loss_sums(self, sums: Mapping[str, float]) -> None:
        """Restores what `loss_sums` returned, so that the mean loss covers the whole run."""
        self._tr_loss = torch.tensor(sums["loss_since_logged"], device=self.args.device)
        self._total_loss_scalar = sums["loss_until_logged"]
        self._globalstep_last_logged = int(sums["step_logged"])
        self._initial_global_step = 0

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        with quiet():  # it warns about intervals, which the next line corrects
            epoch, batches = super()._init_training_state(*args)
        self.state.compute_steps(self.args, self.state.max_steps)  # replaces the checkpoint's intervals
        self.start_at(epoch, batches)
        if self.state.global_step >= self.state.max_steps:
            epoch = sys.maxsize
        return epoch, batches

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        def write(folder: Path) -> None:
            self.checkpoint_parent = folder.parent
            try:
                with quiet():
                    super(TrainerInternals, self)._save_checkpoint(model, trial)
            finally:
                self.checkpoint_parent = None

        self.save_checkpoint(write)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.checkpoint_parent or self.args.output_dir)

    def _set_signature_columns_if_needed(self) -> None:
        if self.columns is None:
            super()._set_signature_columns_if_needed()
        else:
            self._signature_columns = self.columns
