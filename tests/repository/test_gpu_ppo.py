"""The part `ppo` of `benchmarks/gpu.py`: seconds, peaks and accounting of each phase."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.memory.account import Account

from ..helpers.repository import REPOSITORY


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")


def test_an_iteration_of_ppo_is_measured_by_phase() -> None:
    from gpu import summary
    from gpu_ppo import ppo
    from gpu_sizes import SMALL

    found: dict[str, Any] = {}
    for result in ppo(SMALL, {}):
        found |= result
    names = ["sampling", "scoring", "advantages", "update"]
    assert list(found["first_iteration_seconds"]) == names
    seconds = [found[name]["phase_seconds"] for name in names]
    assert min(seconds) > 0
    assert found["iteration"]["phase_seconds"] == pytest.approx(sum(seconds))
    assert 8 <= found["answer_tokens"] <= 64
    for name in names:
        assert found[name]["accounted_gb"] > 0
        assert "policy weights" in found[name]["accounted_by_part"]
    assert [line.split()[1] for line in summary("ppo", found).splitlines()[2:]] == [*names, "iteration"]


def test_an_update_is_accounted_as_the_larger_of_both_models() -> None:
    from gpu_ppo import accounted

    accounts = {
        "policy": Account({"logits": 4 * 10**9}, {}, "loss"),
        "critic": Account({"buffers": 3 * 10**9}, {}, "step"),
    }
    found = accounted("update", {"peak_gb": 5.0}, accounts)
    assert found == {"accounted_gb": 4.0, "accounted_by_part": {"logits": 4.0}, "peak_over_accounted": 1.25}
    assert "peak_over_accounted" not in accounted("update", {}, accounts)


def test_the_peak_of_an_iteration_is_that_of_its_largest_phase() -> None:
    from gpu_ppo import whole

    phases = {
        "sampling": {"phase_seconds": 1.5, "peak_gb": 60.0},
        "update": {"phase_seconds": 2.0, "peak_gb": 70.0},
    }
    assert whole(phases) == {"phase_seconds": 3.5, "peak_gb": 70.0}
