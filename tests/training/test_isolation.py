"""Which errors count against a kernel, and that all ranks choose the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llamita.processes import rank
from llamita.training import isolation
from llamita.training.attention import attending_within_segments
from llamita.training.isolation import isolate

from ..helpers.tiny import tiny_model
from ..helpers.two_ranks import on_two_ranks


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("NCCL error: remote process exited or there was a network error"),
    ],
)
def test_lack_of_memory_and_lost_ranks_say_nothing_about_a_kernel(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: Any) -> float:
        raise error

    monkeypatch.setattr(isolation, "_relative_difference", fail)
    model = tiny_model()
    with attending_within_segments(model), pytest.raises(type(error), match=str(error)[:10]):
        isolate(model)


def test_ranks_choose_the_same_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With different kernels they would wait in different collectives."""

    def chosen() -> tuple[str, int]:
        model = tiny_model()
        passes: list[str] = []

        def difference(model: Any) -> float:
            passes.append(kernel := model.config._attn_implementation)
            if rank() == 1 and kernel == "packed":
                raise NotImplementedError("only this rank's GPU lacks it")
            return 0.0

        monkeypatch.setattr(isolation, "_relative_difference", difference)
        with attending_within_segments(model):
            isolate(model)
            return model.config._attn_implementation, len(passes)

    assert on_two_ranks(chosen, tmp_path) == [("sdpa", 2)] * 2
