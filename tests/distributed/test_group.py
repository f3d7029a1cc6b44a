"""The process group of one process; tests/launch has two real ranks."""

from __future__ import annotations

import os

import pytest
import torch

from llamita.distributed import group
from llamita.errors import ConfigError


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_needs_no_group():
    group.setup()
    values = torch.tensor([1, 2])
    assert group.all_reduce_sum(values) is values
    assert group.gather_rows([1, 2]) == [1, 2]
    group.barrier()
    group.shutdown()


def test_a_zero_file_without_a_launcher_is_refused():
    with pytest.raises(ConfigError, match=r"zero2\.json.*launch/deepspeed\.sh"):
        group.setup("configs/deepspeed/zero2.json")


@pytest.mark.parametrize(("gpu", "accelerator"), [(False, "cpu"), (True, None)])
def test_without_a_gpu_deepspeed_is_set_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, accelerator: str | None
) -> None:
    """Otherwise it prints a warning into the terminal of every stage."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("DS_ACCELERATOR", "")
    monkeypatch.delenv("DS_ACCELERATOR")
    group.setup()
    assert os.environ.get("DS_ACCELERATOR") == accelerator
