"""Who this process is among others; two real ranks meet in tests/launch."""

from __future__ import annotations

import pytest
import torch

from llamita import processes
from llamita.distributed import group
from llamita.errors import ConfigError


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_needs_no_group():
    group.setup()
    assert (processes.world_size(), processes.rank(), processes.is_main_process()) == (1, 0, True)
    values = torch.tensor([1, 2])
    assert group.all_reduce_sum(values) is values
    group.barrier()
    group.shutdown()


def test_the_launchers_environment_says_who_we_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (processes.world_size(), processes.rank(), processes.is_main_process()) == (4, 3, False)


def test_a_zero_file_without_a_launcher_is_refused():
    with pytest.raises(ConfigError, match=r"zero2\.json.*launch/deepspeed\.sh"):
        group.setup("configs/deepspeed/zero2.json")
