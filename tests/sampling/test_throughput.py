"""Speed of sampling."""

from __future__ import annotations

from llamita.sampling.throughput import throughput


def test_throughput() -> None:
    assert throughput(answers=6, tokens=90, seconds=1.5) == {
        "sampling/answers_per_second": 4.0,
        "sampling/tokens_per_second": 60.0,
    }
