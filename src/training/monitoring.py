"""What a training run monitors besides its loss: loss spikes, FLOPs, utilization and memory of the device."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch

from ..processes import world_size
from .settings import TrainedSettings

# part of the device's name -> FLOP/s of dense bf16 matrix products, from the vendors' data sheets
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "A6000": 155e12,
    "4090": 165e12,
    "MI300X": 1307e12,
}


@dataclass(frozen=True)
class MonitorOptions:
    """What to monitor besides the loss.

    Attributes:
        flops_per_item: model FLOPs of training on one token (or pair); None if unknown.
        loss_spike: a loss above this multiple of the median of earlier losses triggers a rollback; if None,
            only a NaN or infinite loss does.
        keep_every: checkpoints of steps divisible by this number are kept until the stage is finished.
    """

    flops_per_item: float | None = None
    loss_spike: float | None = None
    keep_every: int | None = None


LOSS_ONLY = MonitorOptions()


def monitor_options(settings: TrainedSettings, flops_per_item: float | None = None) -> MonitorOptions:
    """The options given by a stage's settings."""
    return MonitorOptions(flops_per_item, settings.loss_spike, settings.keep_every)


def peak_flops() -> float | None:
    """Peak bf16 FLOP/s of this rank's device; None for a CPU or a GPU that is not in `PEAKS`."""
    if not torch.cuda.is_available():
        return None
    device_name = torch.cuda.get_device_name()
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)


def utilization(monitor: MonitorOptions, items_per_second: float) -> dict[str, float]:
    """`tflops_per_second` of one rank and `mfu`, its share of the device's peak; unknown ones are missing.

    `items_per_second` counts the tokens or pairs of all ranks.
    """
    if monitor.flops_per_item is None:
        return {}
    flops = monitor.flops_per_item * items_per_second / world_size()
    peak = peak_flops()
    return {"tflops_per_second": flops / 1e12, **({} if peak is None else {"mfu": flops / peak})}


def peak_memory() -> float:
    """Peak memory in GB (10^9 bytes) so far: of this rank's GPU if there is one, otherwise of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
