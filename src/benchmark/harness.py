"""lm-eval as a library that may be missing; importing this module does not import it."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import ConfigError, install_command

if TYPE_CHECKING:
    from .figures import Samples
    from .model import TestedModel
    from .tasks import Benchmark


def lm_eval() -> ModuleType:
    """The package lm_eval, silenced: what it would report, the stage reports itself.

    Raises ConfigError if it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import lm_eval
    except ImportError as error:
        raise ConfigError(
            f"tasks: benchmarks need the package lm-eval ({error}); {install_command('eval')}"
        ) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    import lm_eval.api.task
    from tqdm import tqdm

    lm_eval.api.task.tqdm = partial(tqdm, disable=True)  # a bar for each of MMLU's 57 subjects
    return lm_eval


def harness_version() -> str:
    """The installed version of lm-eval."""
    return importlib.metadata.version("lm-eval")


def evaluate(benchmark: Benchmark, model: TestedModel, *, template: bool) -> tuple[Samples, int]:
    """Runs a benchmark of lm-eval on a model; returns lm-eval's samples and the number of truncated prompts.

    Args:
        template: whether prompts are written in the chat template, with worked examples as earlier turns.
    """
    lm_eval()
    from lm_eval.evaluator import evaluate as run

    from .adapter import HarnessModel

    adapter = HarnessModel(model, benchmark.name)
    results = run(
        adapter,
        {"tasks": benchmark.tasks},
        limit=benchmark.settings.limit,
        bootstrap_iters=0,
        apply_chat_template=template,
        fewshot_as_multiturn=template,
    )
    return results["samples"], len(adapter.truncated)
