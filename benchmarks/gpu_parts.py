"""The parts of `gpu.py`, each a generator of what it has measured so far, and their sizes."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

PIPELINE = Path(__file__).resolve().parent.parent / "configs" / "smoke" / "pipeline.yaml"

Result = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How large everything is that a part makes."""

    pipeline: tuple[str, ...]  # overrides and options of `llamita run`
    matrices: tuple[int, ...]  # rows and columns
    width: int
    layers: int
    heads: int
    vocabulary: int
    context: int
    rows: int  # of a micro-batch; a step has two
    steps: int
    prompt: int  # tokens
    new_tokens: int
    batches: tuple[int, ...]  # answers side by side
    rounds: int


FULL = Sizes(
    pipeline=(),
    matrices=(4096, 8192, 16384),
    width=2048,
    layers=20,
    heads=16,
    vocabulary=32_000,
    context=4096,
    rows=2,
    steps=30,
    prompt=128,
    new_tokens=256,
    batches=(32, 128),
    rounds=2,
)
SMALL = Sizes(
    pipeline=(
        "world.documents=300",
        "world.demonstrations=100",
        "world.instructed=50",
        "world.multi_turn=20",
        "world.ghost_attention=50",
        "world.comparisons=100",
        "world.prompts=50",
        "tokenizer.vocab_size=400",
        "pretrain.trainer.max_steps=2",
        "--until=pretrain",
    ),
    matrices=(64,),
    width=32,
    layers=2,
    heads=2,
    vocabulary=256,
    context=64,
    rows=2,
    steps=12,
    prompt=8,
    new_tokens=8,
    batches=(4,),
    rounds=1,
)


def smoke(sizes: Sizes, _: Mapping[str, Any]) -> Iterator[Result]:
    run = f"gpu-{datetime.now():%m%d-%H%M%S}"
    command = [sys.executable, "-m", "llamita.cli", "--debug", "run", str(PIPELINE), f"name={run}"]
    process = subprocess.Popen([*command, *sizes.pipeline])
    last: Result = {}
    while True:
        code = process.poll()
        if (stages := _stages(Path("runs") / run)) != last:
            last = stages
            yield last
        if code is not None:
            break
        time.sleep(1)
    if code:
        raise RuntimeError(f"llamita run: exit code {code}")


def _stages(run: Path) -> Result:
    """Seconds and metrics of the finished stages of a run, and how far an unfinished one is."""
    finished = {}
    for path in sorted(run.glob("**/manifest.json"), key=lambda path: path.stat().st_mtime):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        finished[path.parent.relative_to(run).as_posix()] = {
            "seconds": manifest["wall_seconds"],
            "metrics": manifest["metrics"],
        }
    unfinished = {}
    for path in run.glob("**/*.partial/metrics.jsonl"):
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # the last line may be half of one
        if whole:
            unfinished[path.parent.relative_to(run).as_posix().removesuffix(".partial")] = json.loads(
                whole.splitlines()[-1]
            )
    return {"run": str(run), "stages": finished, "unfinished": unfinished}


def peak(sizes: Sizes, _: Mapping[str, Any]) -> Iterator[Result]:
    import torch
    from torch.utils.benchmark import Timer

    from llamita.distributed.device import device
    from llamita.training.monitoring import peak_flops

    if (data_sheet := peak_flops()) is not None:
        yield {"data_sheet_tflops": data_sheet / 1e12}
    measured: dict[int, float] = {}
    for side in sizes.matrices:
        factors = torch.randn(2, side, side, device=device(), dtype=torch.bfloat16)
        timer = Timer("a @ b", globals={"a": factors[0], "b": factors[1]})
        seconds = timer.blocked_autorange(min_run_time=1).median
        measured[side] = 2 * side**3 / seconds / 1e12
        yield {"tflops_by_side": measured, "tflops": max(measured.values())}


def pretrain(sizes: Sizes, before: Mapping[str, Any]) -> Iterator[Result]:
    import torch

    measured = before.get("peak", {}).get("tflops")
    with tempfile.TemporaryDirectory() as folder:
        for name, mean_length, kernel in (
            ("one document a row", None, None),
            ("documents of 700 tokens", 700, None),
            ("documents of 700 tokens, flash_attention_2", 700, "flash_attention_2"),
            ("documents of 700 tokens, packed", 700, "packed"),
        ):
            try:
                found = _train(sizes, mean_length, kernel, Path(folder) / name)
                if measured is not None:
                    found["mfu_of_measured_peak"] = found["tflops_per_second"] / measured
            except Exception as error:  # one kernel is not installed or takes too much memory: on to the next
                found = {"error": f"{type(error).__name__}: {error}"}
            yield {name: found}
            gc.collect()  # model and trainer refer to each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def _train(sizes: Sizes, mean_length: int | None, kernel: str | None, out: Path) -> Result:
    """Trains a new model; medians over the rows of its metrics, without the first two."""
    from transformers import TrainingArguments

    from llamita.model.flops import training_flops_per_token
    from llamita.training.arguments import training_arguments
    from llamita.training.attention import OneRowCollator, attending_within_segments
    from llamita.training.loop import run_trainer
    from llamita.training.monitoring import MonitorOptions
    from llamita.training.ordered_trainer import OrderedTrainer
    from llamita.training.settings import COSINE_TO_10_PERCENT
    from llamita.training.tracking import Tracker

    rows, model = _rows(sizes, mean_length, out / "shards"), _model(sizes, "float32")
    section = {
        "max_steps": sizes.steps,
        "per_device_train_batch_size": sizes.rows,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-4,
        "logging_steps": 3,
        "save_steps": 10**6,
    }
    arguments = training_arguments(TrainingArguments, section, out, seed=0, **COSINE_TO_10_PERCENT)
    collator = OneRowCollator() if kernel == "flash_attention_2" else None
    flops = training_flops_per_token(model.config, rows.mean_attended())
    with Tracker(out, {}) as tracker, attending_within_segments(model, kernel):
        trainer = OrderedTrainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=collator,
            description=out.name,
            monitor=MonitorOptions(flops),
        )
        trained = run_trainer(trainer, tracker, items_per_row=sizes.context, unit="tokens")
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [name for name in ("tokens_per_second", "tflops_per_second", "mfu") if name in trained]
    speed = {name: statistics.median(row[f"train/{name}"] for row in logged[2:]) for name in names}
    return {"parameters": model.num_parameters(), "peak_memory_gb": trained["peak_memory_gb"], **speed}


def _rows(sizes: Sizes, mean_length: int | None, folder: Path) -> Any:
    """Rows of random tokens in documents of exponentially distributed lengths, or of one document each."""
    import numpy as np

    from llamita.corpus.encoder import EncodedDocuments
    from llamita.corpus.shards import ShardWriter, TokenShards
    from llamita.corpus.token_rows import TokenRows

    draw = np.random.default_rng(0)
    count = 2 * sizes.rows * sizes.steps * sizes.context
    lengths = np.full(count // sizes.context, sizes.context)
    if mean_length is not None:
        lengths = 2 + draw.exponential(mean_length, 2 * count // mean_length + 2).astype(np.int64)
    writer = ShardWriter(folder, sizes.vocabulary, [])
    ids = draw.integers(3, sizes.vocabulary, lengths.sum(), dtype=np.uint32)
    writer.append(EncodedDocuments(ids, lengths))
    writer.finish("")
    return TokenRows([TokenShards(folder)], sizes.context, isolate_documents=True)


def _model(sizes: Sizes, dtype: str) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    from llamita.distributed.device import device
    from llamita.model.sizes import ModelSize

    torch.manual_seed(0)
    shape = ModelSize(
        hidden_size=sizes.width,
        intermediate_size=sizes.width * 43 // 16,  # Llama 2's share at 7B
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=sizes.context,
    )
    with device():
        return LlamaForCausalLM(shape.llama_config(sizes.vocabulary)).to(getattr(torch, dtype))


def sample(sizes: Sizes, _: Mapping[str, Any]) -> Iterator[Result]:
    import torch
    from rollout import by_generate, by_ours

    model = _model(sizes, "bfloat16").eval()
    drawn = torch.randint(3, sizes.vocabulary, (max(sizes.batches), sizes.prompt)).tolist()
    warm, ways = 4, {"generate": by_generate, "ours": by_ours}
    for way in ways.values():
        way(model, warm)(drawn[:1], 0)
    for batch in sizes.batches:
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for round in range(sizes.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                tokens = sum(way(model, sizes.new_tokens)(drawn[:batch], round))
                speeds[name].append(tokens / (time.perf_counter() - started))
                yield {f"batch of {batch}, tokens/s": speeds}


PARTS: dict[str, tuple[Callable[[Sizes, Mapping[str, Any]], Iterator[Result]], int]] = {
    "smoke": (smoke, 230),
    "peak": (peak, 45),
    "pretrain": (pretrain, 115),
    "sample": (sample, 90),
}  # name: function, limit in seconds; 480 in all
