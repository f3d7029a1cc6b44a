"""Discards the gradients of a DeepSpeed engine, so that no step is taken with them.

DeepSpeed itself does so only after an overflow, inside of `step`. A step with learning rate 0 is no
substitute: it would change Adam's moments and count as a step.
"""

from __future__ import annotations

from typing import Any


def discard_gradients(engine: Any) -> None:
    """Brings a DeepSpeed engine to its state before the first backward pass of a step, for ZeRO-0 to 3.

    What it resets are the attributes that `step` resets after an overflow (DeepSpeed 0.19.8).
    """
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    optimizer.zero_grad(set_to_none=True)  # under ZeRO-3 the next micro-batch counts as a step's first, too
    if stage == 3:
        optimizer.averaged_gradients = {}
        optimizer.norm_for_param_grads = {}
    elif hasattr(optimizer, "averaged_gradients"):  # ZeRO-1 and 2, but for `BF16_Optimizer`
        from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID

        optimizer.micro_step_id = INITIAL_MICRO_STEP_ID
        for group in optimizer.averaged_gradients:
            optimizer.averaged_gradients[group] = optimizer.all_grad_tensors[group] = None
        if optimizer.cpu_offload:
            optimizer.reset_cpu_buffers()
