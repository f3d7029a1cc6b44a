"""Runs PPO under ZeRO files on this process's rank and counts the bytes that the rank holds.

Run by tests/memory/test_ppo_states.py, once for each rank:
`python held_by_ppo.py OUT CASES.json` writes `OUT/<rank>.json`, a list with `held` of each case.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from held_bytes import all_tensors, storages, with_gradients
from torch import Tensor, nn

from llamita.distributed import group
from llamita.model.frozen import HostCopy
from llamita.processes import rank
from llamita.rlhf.ppo import stage
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.sampling.interface import Sampler
from llamita.training.engine import Engine

Storages = dict[int, int]  # sizes by address
Found = dict[str, dict[str, int]]


class Counts:
    """What the rank holds while it samples, and between two micro-batches of a step of either model."""

    def __init__(self) -> None:
        self._before = with_gradients(all_tensors())  # of earlier runs; kept, so that none has their address
        self._engines: dict[str, Engine] = {}
        self.iteration = 0
        self.found: Found = {}

    def engine(self, engine: Engine) -> str:
        """Registers an engine: the policy's is made first."""
        for name, known in self._engines.items():
            if known is engine:
                return name
        name = ("policy", "critic")[len(self._engines)]
        self._engines[name] = engine
        return name

    def count(self, moment: str) -> None:
        """Counts at a moment of the second iteration: in the first, states are still being made."""
        if self.iteration < 2 or moment in self.found:
            return
        parts: dict[str, Storages] = {}
        for name, engine in self._engines.items():
            parts[f"{name} weights"] = storages(_weights(engine.module.parameters()))
            parts[f"{name} optimizer"] = storages(_states(engine))
        everything = list(all_tensors())
        parts["frozen"] = storages(
            [*_weights(t for t in everything if isinstance(t, nn.Parameter)), *_offloaded()]
        )
        large = [tensor for tensor in with_gradients(everything) if tensor.numel() >= 1024]
        parts["others"] = storages(tensor for tensor in large if tensor.is_floating_point())
        known = set(storages(self._before))
        sizes = {}
        for part, found in parts.items():
            sizes[part] = sum(size for place, size in found.items() if place not in known)
            known |= found.keys()
        self.found[moment] = sizes


def held(settings: dict[str, Any], inputs: dict[str, str], out: Path) -> Found:
    """Bytes by moment and part on this rank, in the last iteration.

    Parts are weights and optimizer of policy and critic, other models (`frozen`), and `others`: all other
    floating point tensors of at least 1,024 elements, so gradients, buckets, and the sampler's weights.
    """
    counts = Counts()

    def after(moment: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(engine: Engine, *args: Any, **options: Any) -> Any:
            name = counts.engine(engine)
            result = work(engine, *args, **options)
            if moment == "step" and not options.get("last", True):
                counts.count(name)
            return result

        return call

    def sampling(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            counts.iteration += 1
            counts.count("sampling")
            return work(*args, **options)

        return call

    folders = {name: Path(folder) for name, folder in inputs.items()}
    with (
        patch.object(Engine, "__init__", after("made", Engine.__init__)),
        patch.object(Engine, "backward", after("step", Engine.backward)),
        patch.object(Sampler, "sample", sampling(Sampler.sample)),
    ):
        stage.run(PpoSettings.model_validate_json(json.dumps(settings)), folders, out)
    return counts.found


def _weights(parameters: Iterable[nn.Parameter | Tensor]) -> list[Tensor]:
    found = list(parameters)
    return [*found, *(p.ds_tensor for p in found if hasattr(p, "ds_tensor"))]  # ZeRO-3's partitions


def _offloaded() -> list[Tensor]:
    """Pieces of models in the host's memory."""
    copies = [thing for thing in gc.get_objects() if type(thing) is HostCopy]
    return [piece for one in copies for piece in one.pieces]


def _states(engine: Engine) -> list[Tensor]:
    optimizer = engine._optimizer
    deepspeed = engine._deepspeed
    states = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if deepspeed is not None:
        states += getattr(deepspeed.optimizer, "fp32_partitioned_groups_flat", [])  # of ZeRO-3
    values = (value for state in optimizer.state.values() for value in state.values())
    return [*states, *(value for value in values if isinstance(value, Tensor))]


def main(out: Path, cases: Path) -> None:
    """Writes what this rank holds in each case."""
    found = []
    for number, case in enumerate(json.loads(cases.read_text())):
        folder = out / f"{number}"
        if rank() == 0:
            folder.mkdir()
        found.append(held(case["settings"], case["inputs"], folder))
    (out / f"{rank()}.json").write_text(json.dumps(found))
    group.barrier()
    group.shutdown()
    os._exit(0)  # the threads of gloo's many groups sometimes abort a process that ends normally


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
