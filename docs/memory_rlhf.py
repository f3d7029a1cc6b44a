"""The sections of `memory.md` on rejection sampling and PPO: the cheapest settings that fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from memory_tables import GB, GPUS_OF_NODE, LIMIT, MODELS, ZERO_FILES, gb, marked, table

from llamita.memory.account import Account
from llamita.memory.ppo import ppo
from llamita.memory.rejection import rejection
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.rejection.settings import RejectionSettings
from llamita.rlhf.settings import FrozenModels
from llamita.sampling.settings import BuiltinEngine, VllmEngine
from llamita.training.settings import LoraSettings

SAMPLED = 1024  # tokens of a prompt and of an answer
CACHES = 131_072, 65_536, 32_768, 16_384  # settings of sampling_cache_tokens, those that sample fastest first
MICRO_BATCH = 4096  # tokens, as in the other stages
HOST_LIMIT = 1000 * GB  # each node


class Run(NamedTuple):
    """A model, the number of GPUs, and who samples."""

    model: str
    gpus: int
    servers: bool = False

    @property
    def text(self) -> list[str]:
        return [self.model, f"{self.gpus}{' + servers' if self.servers else ''}"]


class Choice(NamedTuple):
    """What a user can set to make a model fit."""

    zero: str | None
    checkpointing: bool
    frozen: FrozenModels
    lora: bool = False

    @property
    def text(self) -> str:
        names = [self.zero or "no ZeRO file", *(["checkpointing"] if self.checkpointing else [])]
        return " + ".join([*names, *([] if self.lora else [f"{self.frozen} frozen models"])])

    @property
    def file(self) -> str | None:
        return None if self.zero is None else str(ZERO_FILES / f"{self.zero}.json")


RUNS = [Run("7B", 8), Run("13B", 16), Run("34B", 32, servers=True), Run("70B", 64, servers=True)]
CHOICES = [  # those with the least communication, copying and recomputation first
    Choice("zero2", False, "whole"),
    Choice("zero2", True, "whole"),
    Choice("zero2", True, "offloaded"),
    Choice("zero3", True, "offloaded"),
    Choice("zero3", True, "sharded"),
    Choice("zero3_offload", True, "sharded"),
]
LORA_RUNS = [Run("7B", 1), Run("13B", 1), Run("34B", 8, servers=True), Run("70B", 8, servers=True)]
LORA_CHOICES = [Choice(None, True, "whole", lora=True), Choice("zero3", True, "whole", lora=True)]

REJECTION = f"""## rejection

`rejection` samples, scores and then trains as `sft` does. Whatever the ZeRO file, sampling holds the
sampler's copy of the weights and a key-value cache of at most `sampling_cache_tokens` on every GPU; the
loaded model is in the host's memory. Scoring holds two reward models as `frozen_models` says: `whole`
(matrices in bf16), `offloaded` (in the host's memory, but for the one that scores) or `sharded` (by ZeRO-3).
The first settings that fit, the cheapest first (in the order of the next section), with prompts and answers
of up to {SAMPLED:,} tokens, in GB on each GPU:
"""

PPO = f"""## ppo

`ppo` holds two trained models, policy and critic, and three that are not trained: the reference and two
reward models, all of the same size. The largest phase of an iteration decides. Sampling adds the sampler's
weights in bf16 and the cache, which are freed while training. Scoring and the passes before the update gather
the layers of a `sharded` model, or copy an `offloaded` one to the GPU; every rank has its own copy of it in
the host's memory (pinned). The first settings that fit, the cheapest first, with prompts and answers of up to
{SAMPLED:,} tokens, `max_tokens_per_micro_batch: {MICRO_BATCH}`, and at most {HOST_LIMIT // GB:,} GB in the
memory of each node of {GPUS_OF_NODE} GPUs; in GB on each GPU:
"""

LORA = """With `lora` all of these models are adapters of one base model in bf16, which is partitioned under
ZeRO-3:
"""

SERVERS = """Sampling needs whole weights on a GPU. If whole weights don't fit on a GPU, servers on other
GPUs must sample the answers (`sampler: {engine: vllm, …}`, see [sampling.md](sampling.md)).
"""

ONE_GPU = """## Stages on one GPU

`gatt`, `distillation`, `evaluate` and `red_team` run in one process, which uses one GPU. What it holds at the
same time, in whole models of the stage's `dtype` (default float32), besides the key-value cache of
`sampling_cache_tokens`; these stages have no tables and were not measured:

| stage | whole models on the GPU |
|---|---|
| `gatt` | the chat model while it samples; with reward models as inputs also both of these |
| `distillation` | the chat model while it samples, then the safety model |
| `red_team` | the attacker and the versions, one after the other, while they sample; then with `by: safety` \
the safety model |
| `evaluate` | `sft` and the version that is measured, and one of these at a time: the sampler's copy of \
the version, one reward model, the model from which PPO started |

With `engine: vllm` servers hold the models that sample. `evaluate` still loads `sft` and the version, which
it needs for the KL. `benchmark` can run on several ranks, each with the whole model; with `engine: vllm` only
for the benchmarks that score answers instead of sampling them.
"""


def sections() -> Iterator[str]:
    """Both sections, as Markdown."""
    yield REJECTION
    phases = ["sampling", "scoring", "training"]
    runs = [*RUNS[:2], Run("34B", 32), RUNS[-1]]  # 34B beside nothing but its cache
    yield _phases(phases, [_fitting(run, "rejection", CHOICES, phases) for run in runs])
    yield PPO
    phases = ["sampling", "scoring", "passes", "policy", "critic"]
    yield _phases(phases, [_fitting(run, "ppo", CHOICES, phases) for run in RUNS])
    yield "What the largest of these phases holds:\n"
    parts = ["policy", "critic", "frozen", "sampler", "cache", "rest"]
    yield table(["model", "GPUs", "phase", *parts, "sum"], map(_parts, RUNS))
    yield f"The largest phase under each setting (**bold**: at most {LIMIT // GB}):\n"
    yield table(["model", "GPUs", *(choice.text for choice in CHOICES)], map(_all, RUNS))
    yield LORA
    yield _phases(phases, [_fitting(run, "ppo", LORA_CHOICES, phases) for run in LORA_RUNS])
    yield SERVERS
    yield ONE_GPU


def _phases(phases: list[str], rows: list[list[str]]) -> str:
    return table(["model", "GPUs", "settings", "sampling_cache_tokens", *phases, "host, each node"], rows)


def _fitting(run: Run, stage: str, choices: list[Choice], phases: list[str]) -> list[str]:
    choice, cache, found = _first(run, stage, choices)
    sizes = [found[phase].total if phase in found else 0 for phase in phases]
    cached = f"{cache:,}" if not run.servers else "–"
    return [*run.text, choice.text, cached, *map(gb, sizes), gb(_host(found))]


def _first(run: Run, stage: str, choices: list[Choice]) -> tuple[Choice, int, dict[str, Account]]:
    """The first settings that fit, with the largest cache that fits."""
    for choice in choices:
        for cache in CACHES:
            found = _accounts(run, stage, choice, cache)
            if _largest(found).total <= LIMIT and _host(found) <= HOST_LIMIT:
                return choice, cache, found
    raise ValueError(f"{stage}: no settings fit {run}")


def _parts(run: Run) -> list[str]:
    _, _, found = _first(run, "ppo", CHOICES)
    account = _largest(found)
    sizes = dict.fromkeys(("policy", "critic", "frozen", "sampler", "cache", "rest"), 0)
    for part, size in account.gpu.items():
        name = part.split()[0]
        sizes[name if name in sizes else "rest"] += size
    phase = next(name for name, other in found.items() if other is account)
    return [*run.text, phase, *map(gb, sizes.values()), gb(account.total)]


def _all(run: Run) -> list[str]:
    return [
        *run.text,
        *(marked(_largest(_accounts(run, "ppo", choice, CACHES[-1])).total) for choice in CHOICES),
    ]


def _accounts(run: Run, stage: str, choice: Choice, cache: int) -> dict[str, Account]:
    values = {
        "max_prompt_length": SAMPLED,
        "max_new_tokens": SAMPLED,
        "sampling_cache_tokens": cache,
        "dtype": "bfloat16",
        "frozen_models": choice.frozen,
        "deepspeed": choice.file,
        "lora": LoraSettings() if choice.lora else None,
        "sampler": VllmEngine(engine="vllm", urls=["http://server:8000"])
        if run.servers
        else BuiltinEngine(engine="builtin"),
    }
    if stage == "rejection":
        trainer = {"gradient_checkpointing": choice.checkpointing}
        settings = RejectionSettings.model_construct(
            prompts_per_round=64 * run.gpus, trainer=trainer, **values
        )
        return rejection(settings, MODELS[run.model], run.gpus)
    chosen = PpoSettings.model_construct(
        max_tokens_per_micro_batch=MICRO_BATCH, gradient_checkpointing=choice.checkpointing, **values
    )
    found = ppo(chosen, MODELS[run.model], run.gpus)
    del found["publishing"]  # what is added is in the memory of one host
    return found


def _largest(found: dict[str, Account]) -> Account:
    return max(found.values(), key=lambda account: account.total)


def _host(found: dict[str, Account]) -> int:
    return GPUS_OF_NODE * max(sum(account.host.values()) for account in found.values())
