"""Which checkpoints go on with which ranks (the real conversions: tests/launch/test_other_ranks.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamita.checkpoints.sealed import Checkpoints
from llamita.checkpoints.universal import check_same_ranks
from llamita.deepspeed_file import zero_stage
from llamita.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path) -> dict[int, str]:
    for stage in (0, 2, 3):
        (tmp_path / f"{stage}.json").write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return {stage: str(tmp_path / f"{stage}.json") for stage in (0, 2, 3)}


def test_the_stage_that_a_file_asks_for(files: dict[int, str], tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    assert [zero_stage(file) for file in files.values()] == [0, 2, 3]
    assert zero_stage(str(tmp_path / "none.json")) == 0
    assert zero_stage(None) is None


def test_an_engine_of_our_own_wants_its_ranks_back(
    tmp_path: Path, files: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (None, 2):
        checkpoints = Checkpoints(tmp_path / str(stage), zero_stage=stage)
        checkpoints.save(1, lambda folder: None)
        checkpoint = checkpoints.newest()
        assert checkpoint is not None
        check_same_ranks(checkpoint, None if stage is None else files[stage])
        with pytest.raises(ConfigError, match="under ZeRO-3; expected the same ranks and `deepspeed`"):
            check_same_ranks(checkpoint, files[3])
        monkeypatch.setenv("WORLD_SIZE", "2")
        if stage is None:
            check_same_ranks(checkpoint, None)  # its states are whole
        else:
            with pytest.raises(
                ConfigError, match="saved by 1 ranks under ZeRO-2, to go on with 2 under ZeRO-2"
            ):
                check_same_ranks(checkpoint, files[2])
        monkeypatch.delenv("WORLD_SIZE")
