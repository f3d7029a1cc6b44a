"""Which checkpoints fit which ranks (real conversions: tests/launch/test_other_ranks.py, tests/rlhf)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

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


def test_the_optimizers_step_is_not_looked_for_at_a_buffer(tmp_path: Path) -> None:
    """Which folder comes first depends on the file system."""
    for name in ("mp_rank_00", "zero_pp_rank_0_mp_rank_00"):
        torch.save({}, tmp_path / f"{name}_model_states.pt")
    for name in ("weight", *(f"buffer{number}" for number in range(30))):
        (tmp_path / "zero" / name).mkdir(parents=True)
        torch.save(torch.zeros(1), tmp_path / "zero" / name / "fp32.pt")
    torch.save(torch.tensor(7.0), tmp_path / "zero" / "weight" / "step.pt")
    path = tmp_path / "zero" / "optimizer_state.pt"
    torch.save({"param_groups": []}, path)

    universal._fit_all_zero_stages(tmp_path)
    state = torch.load(path, weights_only=True)
    assert state["optimizer_state_dict"] == {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": []}
