"""A model with its optimizer for PPO's training loop: plain torch or DeepSpeed.

PPO trains two models in one process. `accelerate` supports one DeepSpeed engine per process, so each model
gets its own from `deepspeed.initialize`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ..deepspeed_file import engine_config
from ..distributed.device import device
from ..processes import is_main_process, world_size
from .discarding import discard_gradients
from .settings import PAPER_OPTIMIZER

STATE = "state"  # name in a checkpoint: the file state.pt, or DeepSpeed's folder


class Engine:
    """Trains one model with AdamW at a constant learning rate, by default with the paper's settings.

    Dropout is off: the model stays in eval mode. Without DeepSpeed, weights keep their dtype; with it, its
    file sets the precision (`auto`: bf16 on a GPU).

    Args:
        model: moved to this rank's device and trained in place.
        learning_rate: constant learning rate.
        micro_batch_size: rows per forward pass on this rank.
        accumulates: whether an optimizer step may have several micro-batches.
        deepspeed: path of a ZeRO-0/1/2 file without an optimizer.
        optimizer: values that differ from `PAPER_OPTIMIZER`, under the same names (of `TrainingArguments`).

    Raises:
        ConfigError: the file sets ZeRO-3, an optimizer or a scheduler.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        micro_batch_size: int,
        *,
        accumulates: bool,
        deepspeed: str | None = None,
        optimizer: Mapping[str, Any] = PAPER_OPTIMIZER,
    ) -> None:
        options = PAPER_OPTIMIZER | dict(optimizer)
        self.module = model.to(device())
        self._max_grad_norm: float = options["max_grad_norm"]
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(self.module, options["weight_decay"]),
            lr=learning_rate,
            betas=(options["adam_beta1"], options["adam_beta2"]),
            eps=options["adam_epsilon"],
            fused=True,
        )
        self._deepspeed: Any = None
        if deepspeed is not None:
            config = engine_config(
                deepspeed,
                gpu=device().type == "cuda",
                micro_batch_size=micro_batch_size,
                accumulates=accumulates,
            )
            config["gradient_clipping"] = self._max_grad_norm
            self._deepspeed = _initialize(self.module, self._optimizer, config)
        self.module.eval()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward pass, with or without gradients."""
        return (self._deepspeed or self.module)(*args, **kwargs)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Adds the gradient of `loss`, the micro-batch's share of the mean loss of the global batch.

        `last`: whether it is the last micro-batch of the step.
        """
        if self._deepspeed is not None:
            self._deepspeed.set_gradient_accumulation_boundary(last)
            # DeepSpeed averages over ranks, but our shares must be summed
            self._deepspeed.backward(loss * world_size(), scale_wrt_gas=False)
        else:
            loss.backward()

    def step(self) -> float:
        """Takes an optimizer step with the gradients of all ranks; returns their norm before clipping."""
        if self._deepspeed is not None:
            self._deepspeed.step()
            return float(self._deepspeed.get_global_grad_norm() or 0.0)
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        if world_size() > 1:
            for parameter in parameters:
                torch.distributed.all_reduce(parameter.grad)
        norm = nn.utils.clip_grad_norm_(parameters, self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    @property
    def unallocated_state(self) -> int:
        """Bytes on this rank's device that the optimizer's first step will allocate for Adam's moments."""
        return sum(
            2 * parameter.numel() * parameter.element_size()
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter not in self._optimizer.state and parameter.device.type == device().type
        )

    def discard_gradients(self) -> None:
        """Forgets the gradients of all backward passes since the last step, as if there had been none."""
        if self._deepspeed is not None:
            discard_gradients(self._deepspeed)
        else:
            self._optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> None:
        """Writes weights and optimizer state below the existing `folder`; every rank calls it."""
        if self._deepspeed is not None:
            self._deepspeed.save_checkpoint(str(folder), tag=STATE)
        elif is_main_process():
            state = {"model": self.module.state_dict(), "optimizer": self._optimizer.state_dict()}
            torch.save(state, folder / f"{STATE}.pt")

    def load(self, folder: Path) -> None:
        """Loads what `save` wrote, on the same number of ranks."""
        if self._deepspeed is not None:
            self._deepspeed.load_checkpoint(str(folder), tag=STATE)
            return
        state = torch.load(folder / f"{STATE}.pt", map_location=device(), weights_only=True)
        self.module.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices, none for norms and biases, as in the Trainer-based stages."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {
            "params": [parameter for parameter in trained if parameter.ndim >= 2],
            "weight_decay": weight_decay,
        },
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def _initialize(model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    import deepspeed

    config["zero_allow_untested_optimizer"] = True
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=config, dist_init_required=False
    )
    return engine
