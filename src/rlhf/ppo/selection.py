"""Selects the version of the policy to publish: the best one on held-out prompts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...artifact import write_json
from ...checkpoints.sealed import Checkpoints
from ...console import say
from ...distributed.group import once
from ...errors import LlamitaError
from ...model.saving import read_weights, write_weights
from ...processes import is_main_process, phase
from ..prompts import EncodedPrompt
from .early_stopping import EarlyStopping
from .held_out import evaluate
from .metrics import Metrics, PhaseTimer
from .trainer import PpoTrainer

STATE = "early_stopping.json"  # in a checkpoint of the trainer
BEST = "best"  # below the folder of the trainer's checkpoints


class Selection:
    """Evaluates the policy every `eval_iterations` and stores the weights of the best version.

    The weights are whole: another number of ranks or another ZeRO stage can publish them.

    Without held-out prompts it does nothing, and the last version is published. Every rank calls all methods.

    Args:
        prompts: held-out prompts, at least 2 or none.
        folder: folder of the trainer's checkpoints.
    """

    def __init__(self, trainer: PpoTrainer, prompts: Sequence[EncodedPrompt], folder: Path) -> None:
        settings = trainer.settings
        self._trainer, self._prompts, self._settings = trainer, prompts, settings
        # 2: an older checkpoint of the trainer, the reserve for a damaged one, may need the previous version
        self._store = Checkpoints(folder / BEST, keep_last=2)
        self._rule = EarlyStopping(settings.patience, settings.kl_limit)

    @property
    def stops(self) -> bool:
        """Whether training stops early."""
        return self._rule.reason is not None

    @property
    def why(self) -> str:
        """Why training stops, for a message."""
        return {
            "reward": f"no improvement of the held-out reward in {self._settings.patience} evaluations",
            "kl": f"KL to the start model above kl_limit {self._settings.kl_limit}",
            None: "it does not stop",
        }[self._rule.reason]

    def improved(self, iteration: int) -> bool:
        """Whether the version after this iteration is the best so far."""
        return self._rule.best == iteration

    def after(self, iteration: int) -> Metrics:
        """Evaluates the version after an iteration if that is due, and stores it if it is the best.

        Iteration 0 is the start model: it is published if no version is better.
        """
        if not self._is_due(iteration):
            return {}
        timer, before = PhaseTimer(), self._rule.state()
        with phase("evaluating held-out prompts"):
            metrics = self._rule.add(iteration, evaluate(self._trainer, self._prompts, iteration))
        if self.improved(iteration) and not self._store.save(iteration, self._save_policy):
            self._rule.load(before)  # what cannot be stored cannot be published
        timer.end("evaluation")
        return metrics | timer.seconds

    def _is_due(self, iteration: int) -> bool:
        """While only the critic is trained, the policy is still the start model."""
        if not self._prompts or 0 < iteration <= self._settings.critic_warmup_iterations:
            return False
        return iteration % self._settings.eval_iterations == 0 or iteration == self._settings.iterations

    def _save_policy(self, folder: Path) -> None:
        write_weights(self._weights, folder)

    @property
    def _weights(self) -> dict[str, Any]:
        return dict(self._trainer.policy.module.named_parameters())

    def save(self, folder: Path) -> None:
        """Writes the state of early stopping into a checkpoint of the trainer."""
        if self._prompts and is_main_process():
            write_json(folder / STATE, self._rule.state())

    def start(self) -> None:
        """Removes versions that were stored before a kill without a checkpoint of the trainer."""
        if self._prompts:
            once("clearing checkpoints", self._remove_later_versions)

    def load(self, checkpoint: Path) -> None:
        """Restores the state from a checkpoint of the trainer."""
        if not self._prompts:
            return
        self._rule.load(json.loads((checkpoint / STATE).read_text(encoding="utf-8")))
        once("clearing checkpoints", self._remove_later_versions)
        if self._best_checkpoint() is None and not self.stops:
            say(f"{self._lost()}; PPO continues, and the next evaluated version counts as the best")
            self._rule.forget_best()

    def _remove_later_versions(self) -> None:
        """Removes versions that were stored after the trainer's checkpoint, before a kill."""
        for path in self._store.folder.glob("checkpoint-*"):
            if self._store.step(path) > (self._rule.best or 0):
                shutil.rmtree(path)

    def _best_checkpoint(self) -> Path | None:
        newest = self._store.newest()
        return newest if newest is not None and self._store.step(newest) == self._rule.best else None

    def _lost(self) -> str:
        return f"{self._store.folder}: the best version, iteration {self._rule.best}, is missing or damaged"

    def restore(self, last: int) -> None:
        """Loads the best version's weights into the policy, unless it is the one after the last iteration.

        The policy must not be trained again: its optimizer stays that of the last version.

        If no version could be stored, the last one stays. Raises LlamitaError if it is above `kl_limit`, or
        if the checkpoint of the best version is missing or damaged.
        """
        if not self._prompts:
            return
        if self._rule.best is None and self._rule.reason == "kl":
            raise LlamitaError(
                f"PPO: {self.why}, so the last version is not published, and {self._store.folder} has no "
                "earlier one; check that the disk has space, then delete the stage's folder to train again"
            )
        if self._rule.best in (None, last):
            return
        checkpoint = self._best_checkpoint()
        if checkpoint is None:
            raise LlamitaError(f"{self._lost()}; delete the stage's folder to train again")
        say(f"PPO: publishing the version after iteration {self._rule.best}, the best on held-out prompts")
        read_weights(self._weights, checkpoint)

    def summary(self) -> dict[str, Any]:
        """The metrics of the stage: `held_out`, see `EarlyStopping.summary`; empty without prompts."""
        if not self._prompts:
            return {}
        return {"held_out": {"prompts": len(self._prompts), **self._rule.summary()}}
