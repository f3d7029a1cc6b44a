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

from ..checkpoints.universal import STATE, SUFFIX, fix_zero3_optimizer
from ..distributed.device import device
from ..errors import LlamitaError
from ..model.sharded import shape_of
from ..processes import is_main_process, world_size
from .discarding import discard_gradients
from .settings import PAPER_OPTIMIZER

BUFFERS = "buffers"  # name in DeepSpeed's client state


class Engine:
    """Trains one model with AdamW at a constant learning rate, by default with the paper's settings.

    Dropout is off: the model stays in eval mode. Without DeepSpeed, weights keep their dtype; with it, its
    file sets the precision (`auto`: bf16 on a GPU). Under ZeRO-3 a weight is whole only while the module that
    owns it computes, and every rank must make the same passes in the same order.

    Args:
        model: moved to this rank's device and trained in place; may be partitioned already.
        learning_rate: constant learning rate.
        deepspeed: settings of `deepspeed_file.engine_config`; None: plain torch.
        optimizer: values that differ from `PAPER_OPTIMIZER`, under the same names (of `TrainingArguments`).
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        *,
        deepspeed: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] = PAPER_OPTIMIZER,
    ) -> None:
        options = PAPER_OPTIMIZER | dict(optimizer)
        self.module = model.to(device())
        self._max_grad_norm: float = options["max_grad_norm"]
        self._decays = (options["weight_decay"], 0.0)
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(self.module, self._decays),
            lr=learning_rate,
            betas=(options["adam_beta1"], options["adam_beta2"]),
            eps=options["adam_epsilon"],
            fused=True,
        )
        self._deepspeed: Any = None
        if deepspeed is not None:
            config = {**deepspeed, "gradient_clipping": self._max_grad_norm}
            self._deepspeed = _initialize(self.module, self._optimizer, config)
        self.module.eval()

    @property
    def zero_stage(self) -> int | None:
        """None without DeepSpeed."""
        return None if self._deepspeed is None else int(self._deepspeed.zero_optimization_stage())

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
            return self._deepspeed_step()
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        if world_size() > 1:
            for parameter in parameters:
                torch.distributed.all_reduce(parameter.grad)
        norm = nn.utils.clip_grad_norm_(parameters, self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _deepspeed_step(self) -> float:
        norm = None
        if self.zero_stage == 0:  # in fp32 DeepSpeed does not report the norm; the ranks have been summed
            gradients = [weight.grad for weight in self.module.parameters() if weight.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
        self._deepspeed.step()
        reported = self._deepspeed.get_global_grad_norm()
        return float(norm or 0.0) if reported is None else float(reported)

    @property
    def unallocated_state(self) -> int:
        """Bytes on this rank's device that the optimizer's first step will allocate for Adam's moments."""
        return sum(
            2 * parameter.numel() * parameter.element_size()
            for parameter in self._updated()
            if parameter not in self._optimizer.state and parameter.device.type == device().type
        )

    def _updated(self) -> list[Tensor]:
        """The tensors that the optimizer updates; DeepSpeed's ZeRO-3 shows them to it only during a step."""
        if self.zero_stage == 3:
            return list(self._deepspeed.optimizer.fp32_partitioned_groups_flat)
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def discard_gradients(self) -> None:
        """Forgets the gradients of all backward passes since the last step, as if there had been none."""
        if self._deepspeed is not None:
            discard_gradients(self._deepspeed)
        else:
            self._optimizer.zero_grad(set_to_none=True)

    def free_gathered(self) -> None:
        """Frees weights that ZeRO-3 gathered ahead in the last pass; every rank calls it."""
        if self.zero_stage == 3:
            self._deepspeed.empty_partition_cache()

    def save(self, folder: Path) -> None:
        """Writes weights and optimizer state below the existing `folder`; every rank calls it."""
        if self._deepspeed is not None:
            # a universal checkpoint has no buffers
            self._deepspeed.save_checkpoint(str(folder), tag=STATE, client_state={BUFFERS: self._buffers()})
        elif is_main_process():
            state = {"model": self.module.state_dict(), "optimizer": self._optimizer.state_dict()}
            torch.save(state, folder / f"{STATE}.pt")

    def load(self, folder: Path) -> None:
        """Loads what `save` wrote; every rank calls it.

        On another number of ranks or under another ZeRO stage, see `checkpoints.universal.fit_engine`.
        """
        if self._deepspeed is None:
            state = torch.load(folder / f"{STATE}.pt", map_location=device(), weights_only=True)
            self.module.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            return
        universal = self._deepspeed.load_universal_checkpoint()
        path, client = self._deepspeed.load_checkpoint(str(folder), tag=STATE + SUFFIX * universal)
        if path is None:
            raise LlamitaError(f"{folder}: DeepSpeed could not load it; its messages above say why")
        for name, buffer in self._buffers().items():
            buffer.copy_(client[BUFFERS][name])
        if universal and self._deepspeed.zero_optimization_stage() == 3:
            fix_zero3_optimizer(self._deepspeed.optimizer.optimizer, self._decays)

    def _buffers(self) -> dict[str, Tensor]:
        stored = self.module.state_dict().keys()
        return {name: buffer for name, buffer in self.module.named_buffers() if name in stored}


def _parameter_groups(model: nn.Module, decays: tuple[float, float]) -> list[dict[str, Any]]:
    """The first weight decay for matrices, the second for norms and biases."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if len(shape_of(parameter)) >= 2]
    vectors = [parameter for parameter in trained if len(shape_of(parameter)) < 2]
    return [
        {"params": group, "weight_decay": decay}
        for group, decay in zip((matrices, vectors), decays, strict=True)
        if group
    ]


def _initialize(model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    import deepspeed

    config["zero_allow_untested_optimizer"] = True
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=config, dist_init_required=False
    )
    return engine
