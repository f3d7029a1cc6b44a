"""The adapter gives what lm-eval's own `HFLM` gives: same tokens, truncation, stop strings and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from llamita.benchmark.adapter import HarnessModel
from llamita.benchmark.figures import figures, prompt_hash
from llamita.benchmark.model import TestedModel
from llamita.benchmark.settings import BenchmarkSettings
from llamita.benchmark.tasks import Benchmark
from llamita.data.intake import Intake
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.sampling.engines import Samplers

from ..helpers.benchmark import ROWS, TASKS


def adapter(folder: Path, **tasks: Any) -> HarnessModel:
    settings = BenchmarkSettings.model_validate({"tasks": tasks})
    samplers = Samplers(settings, dtype="float32", working=folder)
    return HarnessModel(TestedModel("sft", folder, settings, samplers=samplers), "test")


def reference(folder: Path) -> HFLM:
    model, tokenizer = load_causal_lm(folder).eval(), load_tokenizer(folder)
    length = model.config.max_position_embeddings
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, max_length=length)


@pytest.mark.parametrize(("size", "template"), [("small", False), ("large", False), ("large", True)])
@pytest.mark.parametrize("name", TASKS)
def test_figures_equal_those_of_hflm(name: str, size: str, template: bool, data: Path, models: Path) -> None:
    folder = models / size
    mine = adapter(folder, **{name: TASKS[name]})
    samples = []
    for model in (mine, reference(folder)):
        task = getattr(BenchmarkSettings.model_validate({"tasks": {name: TASKS[name]}}).tasks, name)
        tasks = Benchmark(name, task, data, intake=Intake()).tasks
        found = evaluate(
            model,
            {"tasks": tasks},
            bootstrap_iters=0,
            apply_chat_template=template,
            fewshot_as_multiturn=template,
        )
        samples.append(found["samples"])
    ours, theirs = samples
    assert prompt_hash(ours) == prompt_hash(theirs)
    for task, rows in ours.items():
        for row, expected in zip(rows, theirs[task], strict=True):
            if name in ("gsm8k", "bbh"):
                assert row["resps"] == expected["resps"]
            else:
                logprobs = [response[0][0] for response in row["resps"]]
                assert logprobs == pytest.approx([one[0][0] for one in expected["resps"]], abs=1e-3)
                assert [one[0][1] for one in row["resps"]] == [one[0][1] for one in expected["resps"]]
    assert figures(name, ours) == pytest.approx(figures(name, theirs), abs=1e-5)
    prompts = {arguments[0] for rows in ours.values() for row in rows for arguments in row["arguments"]}
    assert mine.truncated <= prompts
    assert (len(mine.truncated) > 0) == (size == "small")
    if (name, size) in (("mmlu", "small"), ("truthfulqa", "small")):  # all prompts are long
        assert len(mine.truncated) == ROWS, "once, not for each choice and task"


def test_rolling_scores_and_empty_contexts_equal_those_of_hflm(models: Path) -> None:
    ours, theirs = adapter(models / "small", mmlu={}), reference(models / "small")
    texts = ["hello friend, what is a bolo? " * count for count in (1, 3, 40)]
    rolling = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    assert ours.loglikelihood_rolling(rolling) == pytest.approx(
        theirs.loglikelihood_rolling(rolling), rel=1e-5
    )
    pairs = [Instance("loglikelihood", {}, pair, 0) for pair in (("", "hello"), ("hello  ", "friend"))]
    expected = theirs.loglikelihood(pairs)
    assert ours.loglikelihood(pairs) == [
        (pytest.approx(logprob, abs=1e-4), greedy) for logprob, greedy in expected
    ]


def test_generation_ends_at_stop_strings_and_answers_of_other_options_are_apart(models: Path) -> None:
    ours, theirs = adapter(models / "large", mmlu={}), reference(models / "large")
    options = [
        {"until": ["a", "e"], "max_gen_toks": 40},
        {"until": [], "max_gen_toks": 12},
        {"until": ["bo"], "max_gen_toks": 40},
    ]
    requests = [
        Instance("generate_until", {}, (f"hello friend {number}", options[number % 3]), 0)
        for number in range(9)
    ]
    found = ours.generate_until(requests)
    assert found == theirs.generate_until(requests)
    assert not any("a" in text or "e" in text for text in found[::3])
    assert len({len(text) for text in found}) > 2
