"""What a run is watched for, and what it makes of its device."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch

from ..processes import world_size
from .settings import TrainedSettings

# dense matrix products in bf16, FLOP/s, by the makers' data sheets; looked for in the device's name
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
    """What is to be watched besides the loss.

    Attributes:
        flops_per_item: model FLOPs of training on one token (or pair); None: not known.
        loss_spike: a step whose loss is so many times the median of those before it went wrong; None: only
            one whose loss is no number did.
        keep_every: checkpoints of steps that this divides stay until the stage is done.
    """

    flops_per_item: float | None = None
    loss_spike: float | None = None
    keep_every: int | None = None


LOSS_ONLY = MonitorOptions()


def watch(settings: TrainedSettings, flops_per_item: float | None = None) -> MonitorOptions:
    """What a stage's settings want to be watched."""
    return MonitorOptions(flops_per_item, settings.loss_spike, settings.keep_every)


def peak_flops() -> float | None:
    """What this rank's device can do a second in bf16; None for a CPU or a GPU that is not known."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def utilization(watched: MonitorOptions, items_per_second: float) -> dict[str, float]:
    """`tflops_per_second` of a rank, and `mfu`, the share of its device's peak, where these are known."""
    if watched.flops_per_item is None:
        return {}
    flops = watched.flops_per_item * items_per_second / world_size()
    peak = peak_flops()
    return {"tflops_per_second": flops / 1e12, **({} if peak is None else {"mfu": flops / peak})}


def peak_memory() -> float:
    """The most memory so far in GB (10^9 bytes): the GPU's where there is one, otherwise the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
