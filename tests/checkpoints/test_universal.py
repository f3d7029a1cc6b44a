"""Which checkpoints fit which ranks (real conversions: tests/launch/test_other_ranks.py, tests/rlhf)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.checkpoints import universal
from llamita.checkpoints.universal import STATE, Saved, fit_engine
from llamita.errors import ConfigError

RANKS = 2  # of this run


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are converted, which takes DeepSpeed's files."""
    found: list[Path] = []
    monkeypatch.setattr(universal, "_converted", found.append)
    monkeypatch.setenv("WORLD_SIZE", str(RANKS))
    return found


def config(stage: int | None) -> dict[str, Any] | None:
    return None if stage is None else {"zero_optimization": {"stage": stage}}


@pytest.mark.parametrize(
    ("saved", "now"), [(Saved(1, None), None), (Saved(1, 0), 0), (Saved(RANKS, 2), 2), (Saved(RANKS, 3), 3)]
)
def test_what_fits_is_not_converted(
    tmp_path: Path, converted: list[Path], *, saved: Saved, now: int | None
) -> None:
    settings = config(now)
    fit_engine(tmp_path, saved, settings)
    assert not converted
    assert settings == config(now)


@pytest.mark.parametrize(("saved", "now"), [(Saved(1, 2), 2), (Saved(RANKS, 3), 1), (Saved(4, 1), 3)])
def test_other_ranks_or_another_stage_need_a_conversion(
    tmp_path: Path, converted: list[Path], *, saved: Saved, now: int
) -> None:
    settings = config(now) or {}
    fit_engine(tmp_path, saved, settings)
    assert converted == [tmp_path / STATE]
    assert settings["checkpoint"] == {"load_universal": True}


@pytest.mark.parametrize(
    ("saved", "now", "message"),
    [
        (Saved(RANKS, None), 2, "it was saved without DeepSpeed, this run is with ZeRO-2; set `deepspeed`"),
        (Saved(RANKS, 3), None, "it was saved with ZeRO-3, this run is without DeepSpeed; set `deepspeed`"),
        (Saved(RANKS, 0), 1, "it was saved with ZeRO-0, this run is with ZeRO-1; set `deepspeed`"),
        (Saved(RANKS, 0), None, "it was saved with ZeRO-0, this run is without DeepSpeed; set `deepspeed`"),
    ],
)
def test_states_that_only_one_side_shards_are_an_error(
    tmp_path: Path, converted: list[Path], *, saved: Saved, now: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_engine(tmp_path, saved, config(now))
    assert not converted
