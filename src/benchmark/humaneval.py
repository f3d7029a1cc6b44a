"""Runs the tests of HumanEval on completions, in the sandbox; lm-eval calls these functions by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..distributed.group import once
from ..limits import available_cores
from ..sandbox.programs import Limits, Outcome, run_programs


def program(problem: Mapping[str, Any], completion: str) -> str:
    """The program of OpenAI's harness: prompt, completion, tests, and a call of them."""
    return f"{problem['prompt']}{completion}\n{problem['test']}\ncheck({problem['entry_point']})"


def run_tests(
    responses: Sequence[Sequence[str]], problems: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Filter of lm-eval: whether each problem's completion passes its tests, and the reason if not.

    Rank 0 runs the programs, all ranks get the outcomes.
    """
    programs = [
        program(problem, completion) for problem, (completion,) in zip(problems, responses, strict=True)
    ]

    def run() -> list[Outcome]:
        return run_programs(programs, Limits(), workers=available_cores(), label="humaneval: programs")

    return [{"passed": one.passed, "reason": one.reason} for one in once("running programs", run)]


def passed(problem: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The measure of one problem, from its filtered response."""
    return {"pass@1": float(results[0]["passed"])}
