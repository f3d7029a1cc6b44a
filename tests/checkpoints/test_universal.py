"""Which checkpoints fit which ranks (real conversions: tests/launch/test_other_ranks.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamita.checkpoints.sealed import Checkpoints
from llamita.checkpoints.universal import check_same_ranks
from llamita.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path) -> dict[int, str]:
    for stage in (0, 2, 3):
        (tmp_path / f"{stage}.json").write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return {stage: str(tmp_path / f"{stage}.json") for stage in (0, 2, 3)}


def test_checkpoints_of_our_engine_need_the_same_ranks(
    tmp_path: Path, files: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (None, 2):
        checkpoints = Checkpoints(tmp_path / str(stage), zero_stage=stage)
        checkpoints.save(1, lambda folder: None)
        checkpoint = checkpoints.newest()
        assert checkpoint is not None
        check_same_ranks(checkpoint, None if stage is None else files[stage])
        with pytest.raises(
            ConfigError, match="with ZeRO-3; use the same number of ranks and the same `deepspeed`"
        ):
            check_same_ranks(checkpoint, files[3])
        monkeypatch.setenv("WORLD_SIZE", "2")
        if stage is None:
            check_same_ranks(checkpoint, None)  # its states are not sharded
        else:
            with pytest.raises(
                ConfigError, match="saved by 1 ranks with ZeRO-2, this run has 2 ranks with ZeRO-2"
            ):
                check_same_ranks(checkpoint, files[2])
        monkeypatch.delenv("WORLD_SIZE")
