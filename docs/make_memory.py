"""Writes `docs/memory.md` from the accounting in `src/memory/`.

Run it after every change of the accounting or of configs/deepspeed: `.venv/bin/python docs/make_memory.py`
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import memory_rlhf
from memory_tables import GB, GPUS_OF_NODE, LIMIT, MODELS, ZERO_FILES, gb, marked, table

from llamita.memory.account import Account, account
from llamita.memory.engine import Engine
from llamita.memory.host import loading, merged, published
from llamita.memory.lora import adapted
from llamita.memory.shape import Shape
from llamita.memory.states import Trained
from llamita.pretrain.settings import PretrainSettings
from llamita.reward.settings import RewardSettings
from llamita.sft.settings import SftSettings
from llamita.training.settings import LoraSettings, TrainedSettings

PAGE = Path(__file__).with_name("memory.md")
GPUS = 8, 64

STAGES: dict[str, type[TrainedSettings]] = {
    "pretrain": PretrainSettings,
    "sft": SftSettings,
    "reward": RewardSettings,
}


class Choice(NamedTuple):
    """What a user can set to make a model fit."""

    zero: str
    checkpointing: bool

    @property
    def text(self) -> str:
        return f"{self.zero}{' + checkpointing' if self.checkpointing else ''}"


CHOICES = [  # those with the least communication and recomputation first; ZeRO-1 holds more than ZeRO-2
    Choice("zero2", False),
    Choice("zero2", True),
    Choice("zero1", True),
    Choice("zero3", False),
    Choice("zero3", True),
    Choice("zero3_offload", True),
]
PARTS = ["weights", "gradients", "optimizer", "gathered", "buffers", "activations", "logits"]

HEAD = """# Memory

What each GPU of 80 GB holds when the stages train the paper's models in bf16, and which settings make it fit.
In `pretrain`, `sft` and `reward` a micro-batch is the default: one row of 4,096 tokens, or one pair of two
answers of 4,096. The tables of `rejection` and `ppo` are with `dtype: bfloat16`; the default is float32.
[Stages on one GPU](#stages-on-one-gpu) are `gatt`, `distillation`, `evaluate` and `red_team`.

This page is generated from `src/memory/` by `docs/make_memory.py`, and tested to be up to date. GB are 10⁹
bytes. A setting fits if its parts add up to at most 76 GB: the other 4 are for CUDA, NCCL and fragmentation,
which are not counted.

| part | bytes on each of N GPUs; P parameters |
|---|---|
| weights | 2P; ZeRO-3: 2P / N, and weights that are always gathered (norms) |
| gradients | ZeRO-1: 6P (all of them in bf16 and in fp32); ZeRO-2 and 3: 4P / N |
| optimizer | 12P / N: weights and Adam's two moments in fp32 |
| gathered | ZeRO-3: at most `stage3_max_live_parameters` and one weight more, in bf16 |
| buffers | gradients that are being reduced: `reduce_bucket_size`, twice if communication overlaps, and a \
copy; in the optimizer's step of ZeRO-1 2P, of ZeRO-3 up to 4P / N |
| activations | of all layers; with checkpointing the inputs of all layers, and all of one layer |
| logits | `pretrain`: three tensors in fp32, 12 bytes for each token and entry of the vocabulary; `sft`: \
gradients of the output layer in fp32 and bf16, and a tile of logits; `reward`: none |

The parts of a row are those of the moment with the highest sum: when the loss has been computed, in the
backward pass of a layer, in the optimizer's step, or in the evaluation on held-out rows: of `pretrain` with
as many rows at once as in training, of `reward` with 65,536 tokens. Weights are never whole on a GPU under
ZeRO-3, neither while they load nor in the final evaluation. With `zero3_offload` weights, gradients and
optimizer are in the memory of the host. Not counted: torch rounds each of DeepSpeed's pinned buffers up to
a power of two (`pin_memory` in the file), at most to twice its bytes.

Activation checkpointing is `trainer: {gradient_checkpointing: true}`: the default of `sft` and `reward` on
GPUs, not of `pretrain`. The ZeRO files are those of `configs/deepspeed/`.

Tests compare weights, gradients, optimizer and what is published with the tensors of DeepSpeed's engines on
one and two CPU ranks under ZeRO-1, 2 and 3 (within 1%; with `lora`, and in PPO with its frozen models, within
5%), activations and logits with what autograd holds in transformers' Llama (within 5%, autocast with
checkpointing and evaluation within 10%), and the sums with published figures: DeepSpeed's estimates,
LLaMA-Factory's 18 bytes a parameter, litgpt's LoRA of 7B and 13B, prime-rl's SFT of Qwen3-4B. On one H200,
with 1.14 billion parameters, the peak of torch's allocator was 0.93, 0.91 and 1.00 of the sum in pretraining
under ZeRO-2, 3 and 1, and 0.98 in SFT ([figures](../benchmarks/results/gpu.md)). No run of rejection sampling
or PPO has been measured on a GPU. The attention kernel is assumed to need no dense mask.

For other models and settings:

```python
import json
from pathlib import Path

from llamita.config import load_settings
from llamita.memory.ppo import ppo  # or memory.rejection; memory.account for the other stages
from llamita.rlhf.ppo.settings import PpoSettings

settings = load_settings("ppo.yaml", PpoSettings)
config = json.loads(Path("sft/model/config.json").read_text())
for phase, account in ppo(settings, config, ranks=8).items():
    print(phase, account.total, account.gpu, account.host)  # bytes, also by part
```
"""


def page() -> str:
    """The whole page, as Markdown."""
    sections = [section for stage in STAGES for section in _stage(stage)]
    return "\n".join([HEAD, *sections, *memory_rlhf.sections(), *_hosts()])


def _stage(stage: str) -> Iterator[str]:
    """Two tables of a stage: parts under the first setting that fits, and sums under all settings."""
    yield f"## {stage}\n"
    yield "The first setting of the next table that fits, in GB on each GPU:\n"
    yield table(["model", "GPUs", "settings", *PARTS, "sum", "host, each node"], _fitting_rows(stage))
    yield f"The sum under each setting, in GB on each GPU (**bold**: at most {LIMIT // GB}):\n"
    yield table(["model", "GPUs", *(choice.text for choice in CHOICES)], _all_rows(stage))


def _fitting_rows(stage: str) -> Iterator[list[str]]:
    for model in MODELS:
        for gpus in GPUS:
            accounts = {choice: _account(stage, model, gpus, choice) for choice in CHOICES}
            choice = next(choice for choice, found in accounts.items() if found.total <= LIMIT)
            found = accounts[choice]
            parts = [gb(found.gpu.get(part, 0)) for part in PARTS]
            host = gb(GPUS_OF_NODE * sum(found.host.values()))
            yield [model, str(gpus), choice.text, *parts, gb(found.total), host]


def _all_rows(stage: str) -> Iterator[list[str]]:
    for model in MODELS:
        for gpus in GPUS:
            totals = [_account(stage, model, gpus, choice).total for choice in CHOICES]
            yield [
                model,
                str(gpus),
                *map(marked, totals),
            ]


def _hosts() -> Iterator[str]:
    yield "## Loading and publishing\n"
    yield (
        "While a model is loaded and published, weights are also in the memory of hosts. Loading: every\n"
        "rank builds the model in fp32 (with `lora`: the base model in bf16); under ZeRO-3 rank 0 reads one\n"
        "weight at a time. Publishing: rank 0 copies all weights in bf16, under ZeRO-3 those of one file of\n"
        "5 GiB. Merging: with `lora.merge` rank 0 loads the base model in fp32. In GB on the first node of\n"
        "8 GPUs:\n"
    )
    head = ["loading, ZeRO-0 to 2", "loading, ZeRO-3", "publishing, ZeRO-0 to 2", "publishing, ZeRO-3"]
    yield table(["model", *head, "loading with `lora`", "merging"], _host_rows())


def _host_rows() -> Iterator[list[str]]:
    ranks = range(GPUS_OF_NODE)
    for name, config in MODELS.items():
        shape = Shape.from_config(config)
        model, lora = Trained.whole(shape), adapted(shape, LoraSettings())
        engines = [Engine(GPUS_OF_NODE, stage, "bf16") for stage in (2, 3)]
        sizes = [
            sum(part(model, engine, rank) for rank in ranks)
            for part in (loading, published)
            for engine in engines
        ]
        sizes.append(sum(loading(lora, engines[0], rank) for rank in ranks))
        sizes.append(sum(merged(lora, rank) for rank in ranks))
        yield [name, *map(gb, sizes)]


def _account(stage: str, model: str, gpus: int, choice: Choice) -> Account:
    settings = STAGES[stage].model_construct(
        deepspeed=str(ZERO_FILES / f"{choice.zero}.json"),
        trainer={"gradient_checkpointing": choice.checkpointing},
    )
    return account(settings, MODELS[model], gpus)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
