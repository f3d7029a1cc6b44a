"""Speed of sampling, by the metric names of `metrics.jsonl`."""

from __future__ import annotations


def throughput(answers: float, tokens: float, seconds: float) -> dict[str, float]:
    """Sampled answers and tokens per second, over all ranks; tokens include the EOS."""
    return {
        "sampling/answers_per_second": answers / seconds,
        "sampling/tokens_per_second": tokens / seconds,
    }
