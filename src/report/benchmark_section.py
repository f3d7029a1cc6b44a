"""The section of the page on benchmarks; it is omitted if none were run."""

from __future__ import annotations

from .benchmark_figures import benchmarks
from .section import Figure, Section

BENCHMARK_SECTION = Section(
    "benchmark",
    "Benchmarks",
    "Public benchmarks (sections 2.3, 4.1 and 4.4). Figures depend on prompts, worked examples and the rule "
    "that finds the answer in a text, so they are comparable only if these are the same: the second table "
    "shows them. The paper did not publish its own. Measures named (lm-eval) are others than the paper's of "
    "that name.",
    (
        Figure(
            benchmarks,
            "Points: versions of this run, with standard errors. Grey lines: the paper's pretrained models "
            "and GPT-3.5 (tables 3, 4 and 11).",
        ),
    ),
)
