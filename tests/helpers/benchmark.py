"""Ten rows of each benchmark in its authors' schema, of our own invention; models that know the answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .rows import write

ROWS = 10
TASKS: dict[str, dict[str, Any]] = {
    "mmlu": {"path": "mmlu_test.jsonl", "few_shot_path": "mmlu_dev.jsonl", "shots": 2},
    "truthfulqa": {"path": "truthfulqa.jsonl"},
    "toxigen": {"path": "toxigen.jsonl"},
    "gsm8k": {"path": "gsm8k.jsonl.gz", "max_new_tokens": 16},
    "bbh": {"path": "bbh", "max_new_tokens": 16},
}
GENERATIONS: dict[str, dict[str, Any]] = {
    "truthfulqa_generation": {"path": "truthfulqa.jsonl", "max_new_tokens": 8},
    "toxigen_generation": {"path": "toxigen_prompts.jsonl", "max_new_tokens": 8},
    "bold": {"path": "bold", "max_new_tokens": 8},
}
HUMANEVAL = {"humaneval": {"path": "humaneval.jsonl", "max_new_tokens": 16}}


def write_benchmarks(folder: Path) -> Path:
    """Writes the local files of all benchmarks."""
    mmlu = [_question(number) for number in range(ROWS)]
    write(folder / "mmlu_test.jsonl", mmlu)
    write(folder / "mmlu_dev.jsonl", [_question(number) for number in range(20, 24)])
    write(
        folder / "gsm8k.jsonl.gz",
        [
            {
                "question": f"{n} red and {n} fine?",
                "answer": f"{n} + {n} = <<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n}",
            }
            for n in range(ROWS)
        ],
    )
    write(folder / "truthfulqa.jsonl", [_truth(number) for number in range(ROWS)])
    scores = [
        {"text": f"friend {n}", "toxicity_ai": 1.0 + n % 5, "toxicity_human": 1 + n % 5} for n in range(ROWS)
    ]
    write(folder / "toxigen.jsonl", scores)
    prompts = [
        {"prompt": f"- friend {n}\\n- bolo\\n-", "kind": "neutral", "group": "ab"[n % 2]} for n in range(ROWS)
    ]
    write(folder / "toxigen_prompts.jsonl", prompts)
    sums = [f'def add_{n}(x):\n    """Adds {n} to x."""\n' for n in range(ROWS)]
    tests = [f"def check(candidate):\n    assert candidate(1) == {n + 1}\n" for n in range(ROWS)]
    write(
        folder / "humaneval.jsonl",
        [
            {"task_id": f"Own/{n}", "prompt": sums[n], "test": tests[n], "entry_point": f"add_{n}"}
            | {"canonical_solution": f"    return x + {n}\n"}
            for n in range(ROWS)
        ],
    )
    for name in ("bbh", "bold"):
        (folder / name).mkdir()
    dates = [
        {"input": f"Is {n} a date?\nOptions:\n(A) yes\n(B) no", "target": f"({'AB'[n % 2]})"}
        for n in range(5)
    ]
    (folder / "bbh" / "date_understanding.json").write_text(json.dumps({"canary": "none", "examples": dates}))
    words = [{"input": f"not {n} is", "target": str(bool(n % 2))} for n in range(5)]
    (folder / "bbh" / "boolean_expressions.json").write_text(json.dumps({"examples": words}))
    beginnings = {
        "friends": {"Bolo": ["bolo is ", "a bolo was "]},
        "foes": {"Nobo": ["nobo is ", "the nobo was "]},
    }
    (folder / "bold" / "people_prompt.json").write_text(json.dumps(beginnings))
    return folder


def _question(number: int) -> dict[str, Any]:
    subject = ("anatomy", "astronomy")[number % 2]
    choices = ["red", "fine", "bolo", "thanks"]
    return {
        "question": f"what is {number}?",
        "choices": choices,
        "answer": number // 2 % 4,
        "subject": subject,
    }


def _truth(number: int) -> dict[str, Any]:
    return {
        "question": f"is bolo {number} red?",
        "mc1_targets": {"choices": ["yes it is", "no", "again"], "labels": [1, 0, 0]},
        "mc2_targets": {"choices": ["yes it is", "fine yes", "no"], "labels": [1, 1, 0]},
    }


class Oracle:
    """The interface of a model to lm-eval: always answers right, or always wrong.

    It reads the answers from the rows that the requests carry; prompts, filters and grading are those of the
    real path.
    """

    def __new__(cls, right: bool) -> Any:
        from lm_eval.api.model import LM

        class Model(LM):
            def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
                return [(0.0 if _is_right(request) == right else -20.0, False) for request in requests]

            def generate_until(self, requests: list[Any]) -> list[str]:
                return [_answer(request.doc, right) for request in requests]

            def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
                raise NotImplementedError

        return Model()


def _is_right(request: Any) -> bool:
    row, choice = request.doc, request.args[1].strip()
    if "mc1_targets" in row:
        targets = row[f"{request.task_name.removeprefix('truthfulqa_')}_targets"]
        return bool(targets["labels"][targets["choices"].index(choice)])
    if "toxicity_ai" in row:
        return (row["toxicity_ai"] + row["toxicity_human"] > 5.5) == (choice == "Yes")
    return choice == "ABCD"[row["answer"]]


def _answer(row: dict[str, Any], right: bool) -> str:
    if "entry_point" in row:
        number = int(re.findall(r"\d+", row["entry_point"])[0])
        return f"    return x + {number if right else number + 1}\n"
    if "target" in row:
        return f" So the answer is {row['target'] if right else 'bolo'}."
    number = int(row["answer"].rsplit(" ", 1)[1])
    return f" So there are {number} of them. The answer is {number if right else number + 1}."
