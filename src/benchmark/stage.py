"""The stage `benchmark`: public benchmarks of base and chat models (sections 2.3, 4.1 and 4.4)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..artifact import RESUME, check_version_name, write_json
from ..console import aligned_table, say, show
from ..data.intake import Intake
from ..distributed import group
from ..distributed.cached import cached_folder
from ..errors import ConfigError
from ..jsonl import write_rows
from ..processes import is_main_process
from ..sampling.engines import Samplers
from ..settings import listed
from .figures import MEASURES, figures, figures_by_task, prompt_hash, question_rows, sample_rows
from .generations import FIGURES, run_generation, sentiment_analyzer
from .harness import evaluate, harness_version, lm_eval
from .model import TestedModel
from .rows import Row, limited, read_rows
from .settings import BenchmarkSettings, GenerationTask, HarnessTask
from .tasks import Benchmark

BASE, SFT = "base", "sft"
SAMPLES = "samples.jsonl"
PLAIN = frozenset({"humaneval"})
"""Benchmarks whose prompts are never written in a chat template."""


def run(settings: BenchmarkSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Runs all benchmarks on all models, writes `benchmark.json` and returns its contents (docs/report.md).

    Every benchmark of a model is stored below `out/versions`; a resumed run reuses those that are finished.

    Raises:
        ConfigError: there is no model, lm-eval is missing, or the kernel can't isolate HumanEval's programs.
        DataError: broken rows, or a model that can't be loaded.
    """
    versions = _versions(inputs)
    _check_requirements(settings)
    group.setup(settings.deepspeed)
    intake = Intake(settings.max_bad_rows)
    benchmarks, prompts = _read(settings, inputs, intake)
    intake.write(out)
    measured: dict[str, Any] = {}
    with Samplers(settings, dtype=settings.dtype, working=out / RESUME) as samplers:
        models = [
            TestedModel(version, folder, settings, samplers=samplers) for version, folder in versions.items()
        ]
        _check_models(settings, models)
        for model in models:
            tasks: dict[str, Any] = {}
            for name in settings.tasks.chosen():

                def make(part: Path, name: str = name, model: TestedModel = model) -> Row:
                    found, files = _run_task(
                        settings, inputs, name, rows=benchmarks.get(name) or prompts[name], model=model
                    )
                    if is_main_process():
                        for file, written in files.items():
                            write_rows(part / file, written)
                    return found

                tasks[name] = cached_folder(out / "versions" / model.name / name, make)
            measured[model.name] = {"chat_template": _uses_template(settings, model.name), "tasks": tasks}
            model.release()
    result = {
        "harness": harness_version() if benchmarks else None,
        "tasks": {name: _describe(name, task, benchmarks) for name, task in settings.tasks.chosen().items()},
        "versions": measured,
        "rows": intake.metrics(),
    }
    if is_main_process():
        write_json(out / "benchmark.json", result)
    _show(result)
    return result


def _versions(inputs: Mapping[str, Path]) -> dict[str, Path]:
    """The models by name: the base model, `sft`, and later versions."""
    versions = {name: inputs[name] for name in (BASE, SFT) if name in inputs}
    for name, folder in listed(inputs, "versions").items():
        check_version_name(name, "versions")
        versions[name] = folder
    if not versions:
        raise ConfigError("inputs: no model to test; expected base, sft or versions")
    return versions


def _uses_template(settings: BenchmarkSettings, version: str) -> bool:
    return version != BASE if settings.chat_template == "auto" else settings.chat_template


def _check_requirements(settings: BenchmarkSettings) -> None:
    """Reports what is missing before rows are read and models are loaded."""
    if any(isinstance(task, HarnessTask) for task in settings.tasks.chosen().values()):
        lm_eval()
    if settings.tasks.bold is not None:
        sentiment_analyzer()
    if settings.tasks.humaneval is not None:
        from ..sandbox.programs import check_isolation

        group.once("checking the sandbox", check_isolation)


def _check_models(settings: BenchmarkSettings, models: Sequence[TestedModel]) -> None:
    """Raises ConfigError for a model that can't run the benchmarks, before the first one runs any."""
    for model in models:
        model.check_limits()
        if _uses_template(settings, model.name) and settings.tasks.chosen().keys() - PLAIN:
            model.check_template()


def _read(
    settings: BenchmarkSettings, inputs: Mapping[str, Path], intake: Intake
) -> tuple[dict[str, Benchmark], dict[str, list[Row]]]:
    """The benchmarks of lm-eval, and the prompts of the paper's measures, by name."""
    data = inputs.get("data", Path())
    benchmarks: dict[str, Benchmark] = {}
    prompts: dict[str, list[Row]] = {}
    for name, task in settings.tasks.chosen().items():
        if isinstance(task, HarnessTask):
            benchmarks[name] = Benchmark(name, task, data, intake=intake)
        else:
            [source] = task.sources(name)
            prompts[name] = limited(read_rows(source, data, intake=intake), task.limit)
    return benchmarks, prompts


def _run_task(
    settings: BenchmarkSettings,
    inputs: Mapping[str, Path],
    name: str,
    *,
    rows: Benchmark | Sequence[Row],
    model: TestedModel,
) -> tuple[Row, dict[str, Iterable[Row]]]:
    """Runs one benchmark on one model; returns its figures, and the rows of each file to write.

    `rows`: a benchmark of lm-eval, or the prompts of a measure of the paper.
    """
    template = _uses_template(settings, model.name) and name not in PLAIN
    started = time.monotonic()
    files: dict[str, Iterable[Row]]
    if isinstance(rows, Benchmark):
        logged, truncated = evaluate(rows, model, template=template)
        found = {
            **figures(name, logged),
            "by": figures_by_task(rows, logged),
            "prompt_hash": prompt_hash(logged),
            "truncated_prompts": truncated,
        }
        files = {SAMPLES: sample_rows(logged), "questions.jsonl": question_rows(name, logged)}
    else:
        found, samples = run_generation(name, settings, rows, model=model, inputs=inputs, template=template)
        files = {SAMPLES: samples}
    if cut := found["truncated_prompts"]:
        say(f"{model.name}: {name}: {cut:,} prompts exceed the context and lost their first tokens")
    return {**found, "chat_template": template, "seconds": time.monotonic() - started}, files


def _describe(
    name: str, task: HarnessTask | GenerationTask, benchmarks: Mapping[str, Benchmark]
) -> dict[str, Any]:
    """How a benchmark was run: whose measure it is, its rows, shots and limits."""
    described = task.model_dump(exclude={"path", "few_shot_path"})
    if (benchmark := benchmarks.get(name)) is None:
        return {"measure": "paper", "source": task.path, **described}
    return {"measure": "lm-eval", "source": benchmark.source, "shots": 0, **described}


def _show(result: Mapping[str, Any]) -> None:
    """Prints the figures of all models."""
    versions = result["versions"]
    table = aligned_table("benchmark", *versions)
    for name in result["tasks"]:
        for key in headline(name):
            cells = [version["tasks"][name].get(key) for version in versions.values()]
            table.add_row(
                f"{name}: {key}", *("not measured" if cell is None else f"{cell:.3f}" for cell in cells)
            )
    show(table)


def headline(name: str) -> Sequence[str]:
    """Names of a benchmark's figures."""
    return FIGURES.get(name) or list(MEASURES[name])
