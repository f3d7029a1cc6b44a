"""Figures and time of the stage `benchmark` beside lm-eval's own model class, HFLM, on the same rows.

    python benchmarks/benchmark_stage.py MODEL DATA [--tasks gsm8k,bbh,humaneval] [--rows 100] …

DATA is the folder with `gsm8k/train.jsonl.gz`, `bbh/*.json` and `humaneval/HumanEval.jsonl.gz` in their
authors' schemas. Both build the same tasks and run in turn, part by part, in one process with the same
weights in fp32; HFLM gets batches of 8 rows. Of BIG-Bench Hard the rows are spread over its tasks. While
other programs use the machine, processor time is more reliable than the clock; use one thread then
(OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import describe, table

from llamita.benchmark.figures import MEASURES, figures, prompt_hash
from llamita.benchmark.harness import harness_version, lm_eval
from llamita.benchmark.model import TestedModel
from llamita.benchmark.settings import BenchmarkSettings
from llamita.benchmark.tasks import Benchmark
from llamita.data.intake import Intake
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.sampling.engines import Samplers

PATHS = {"gsm8k": "gsm8k/train.jsonl.gz", "bbh": "bbh", "humaneval": "humaneval/HumanEval.jsonl.gz"}
OURS, HFLM = "ours", "HFLM"
BATCH = 8
Samples = dict[str, list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", default=",".join(PATHS))
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--parts", type=int, default=2, help="parts of the rows, which both run in turn")
    arguments = parser.parse_args()
    lm_eval()  # reports at once if it is missing
    rows = []
    for name in arguments.tasks.split(","):
        rows += _compare(name, arguments)
        print(table(HEAD, rows), flush=True)
    print(f"{describe(sys.argv)}lm-eval {harness_version()}\n")
    print(table(HEAD, rows))


HEAD = ("benchmark, figure", OURS, HFLM, "rows", "different answers", "clock, s", "processor, s", "faster")


def _compare(name: str, arguments: argparse.Namespace) -> list[list[str]]:
    """Runs both on the same rows; one line for each figure."""
    settings = BenchmarkSettings(
        tasks={name: {"path": PATHS[name], "max_new_tokens": arguments.max_new_tokens}}
    )
    task = getattr(settings.tasks, name)
    count = len(Benchmark(name, task, arguments.data, intake=Intake()).tasks)
    each = -(-arguments.rows // count)  # of each of the benchmark's tasks
    samples: dict[str, Samples] = {OURS: defaultdict(list), HFLM: defaultdict(list)}
    clock, processor = ({OURS: 0.0, HFLM: 0.0} for _ in range(2))
    for part in range(arguments.parts):
        indices = list(range(each * part // arguments.parts, each * (part + 1) // arguments.parts))
        for which in (OURS, HFLM) if part % 2 == 0 else (HFLM, OURS):
            benchmark = Benchmark(name, task, arguments.data, intake=Intake())
            model = _models(arguments.model, settings, name)[which]()
            started = time.monotonic(), time.process_time()
            for key, found in _evaluate(model, benchmark, indices).items():
                samples[which][key] += found
            clock[which] += time.monotonic() - started[0]
            processor[which] += time.process_time() - started[1]
            print(
                f"{name}: part {part + 1}: {which}: {clock[which]:,.0f} s so far", file=sys.stderr, flush=True
            )
    assert prompt_hash(samples[OURS]) == prompt_hash(samples[HFLM])
    ours, theirs = figures(name, samples[OURS]), figures(name, samples[HFLM])
    different = sum(
        mine["resps"] != other["resps"]
        for key in samples[OURS]
        for mine, other in zip(samples[OURS][key], samples[HFLM][key], strict=True)
        if mine["filter"] == samples[OURS][key][0]["filter"]
    )
    times = [f"{seconds[OURS]:,.0f} / {seconds[HFLM]:,.0f}" for seconds in (clock, processor)]
    faster = f"{clock[HFLM] / clock[OURS]:.2f} / {processor[HFLM] / processor[OURS]:.2f}"
    return [
        [
            f"{name}, {key}",
            f"{ours[key]:.4f}",
            f"{theirs[key]:.4f}",
            str(ours["rows"]),
            str(different),
            *times,
            faster,
        ]
        for key in MEASURES[name]
    ]


def _models(folder: Path, settings: BenchmarkSettings, name: str) -> dict[str, Callable[[], Any]]:
    """Makes the models of lm-eval's interface; weights are loaded before the time is taken."""

    def ours() -> Any:
        from llamita.benchmark.adapter import HarnessModel

        samplers = Samplers(settings, dtype=settings.dtype, working=Path(tempfile.mkdtemp()))
        tested = TestedModel(OURS, folder, settings, samplers=samplers)
        tested.load_sampler()
        return HarnessModel(tested, name)

    def theirs() -> Any:
        from lm_eval.models.huggingface import HFLM as Reference

        model, tokenizer = load_causal_lm(folder).eval(), load_tokenizer(folder)
        length = model.config.max_position_embeddings
        return Reference(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, max_length=length)

    return {OURS: ours, HFLM: theirs}


def _evaluate(model: Any, benchmark: Benchmark, indices: list[int]) -> Samples:
    from lm_eval.evaluator import evaluate

    chosen = dict.fromkeys(benchmark.tasks, indices)
    found = evaluate(model, {"tasks": benchmark.tasks}, samples=chosen, bootstrap_iters=0)
    assert found is not None
    return dict(found["samples"])


if __name__ == "__main__":
    main()
