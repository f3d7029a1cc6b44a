"""All private names of transformers' and trl's `Trainer` that we use, under public names of our own.

For none of this do they have a public way:

- `_init_training_state` (extended) finds where in the data a run starts. Ours passes that place on, since the
  batches are ours, and takes `save_steps` and `logging_steps` from this start, not from the checkpoint.
- `_save_checkpoint` (wrapped) and `_get_output_dir` (replaced): transformers writes a checkpoint under its
  final name, without checksums. `save_checkpoint` decides whether to save, and in which folder.
- `_set_signature_columns_if_needed`, `_signature_columns` (replaced): which columns of the data set reach the
  collator. trl's trainers expect their own columns.
- `_tr_loss`, `_total_loss_scalar`, `_globalstep_last_logged`, `_initial_global_step` (read and set): the sums
  behind the logged losses, which transformers' checkpoints leave out.

A test fails where a release renames one of them, and where another module uses a private name of `Trainer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Trainer

from ..model.saving import quiet


class TrainerInternals(Trainer):
    """Mixed into a Trainer class: its private hooks, for subclasses to fill in."""

    columns: ClassVar[list[str] | None] = None
    """of the data set, which the collator gets; None: those that the Trainer class expects"""

    def __init__(self, **options: Any) -> None:
        self.aside: Path | None = None  # where a checkpoint is being written
        super().__init__(**options)

    def start_at(self, epoch: int, batches: int) -> None:
        """Called before training, with the place in the data: `batches` of `epoch` are done."""

    def save_checkpoint(self, write: Callable[[Path], None]) -> None:
        """Called on every rank after each step that is to be saved.

        `write` fills the folder that it is given, which must be named as transformers names checkpoints.
        """
        raise NotImplementedError

    @property
    def loss_since_logged(self) -> Tensor:
        """This rank's losses of the steps since the last logged row, added up: a scalar on its device."""
        total: Tensor = self._tr_loss
        return total

    def loss_sums(self) -> dict[str, float]:
        """The sums behind this rank's logged losses."""
        return {
            "loss_since_logged": float(self._tr_loss),
            "loss_until_logged": self._total_loss_scalar,
            "step_logged": self._globalstep_last_logged,
        }

    def restore_loss_sums(self, sums: Mapping[str, float]) -> None:
        """Takes what `loss_sums` gave: the mean loss is then that of the whole run."""
        self._tr_loss = torch.tensor(sums["loss_since_logged"], device=self.args.device)
        self._total_loss_scalar = sums["loss_until_logged"]
        self._globalstep_last_logged = int(sums["step_logged"])
        self._initial_global_step = 0

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        with quiet():  # it warns of what the next line sets right
            epoch, batches = super()._init_training_state(*args)
        self.state.compute_steps(self.args, self.state.max_steps)  # a checkpoint brings its own intervals
        self.start_at(epoch, batches)
        return epoch, batches

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        def write(folder: Path) -> None:
            self.aside = folder.parent
            try:
                with quiet():
                    super(TrainerInternals, self)._save_checkpoint(model, trial)
            finally:
                self.aside = None

        self.save_checkpoint(write)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.aside or self.args.output_dir)

    def _set_signature_columns_if_needed(self) -> None:
        if self.columns is None:
            super()._set_signature_columns_if_needed()
        else:
            self._signature_columns = self.columns
