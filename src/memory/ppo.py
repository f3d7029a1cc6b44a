"""What a rank of `ppo` holds while it samples, scores, makes the first passes, trains and publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..deepspeed_file import DeepSpeedFile
from ..rlhf.ppo.settings import PpoSettings
from ..sampling.settings import VllmEngine
from . import host, passes, states
from .account import Account, largest
from .engine import BF16, Engine
from .frozen import Frozen, idle, used
from .lora import adapter, base_model
from .moments import Parts, computing, held, moments
from .passes import MicroBatch
from .sampling import Batch, sampling
from .scoring import Scorers
from .shape import Shape
from .states import Trained


def ppo(
    settings: PpoSettings,
    config: Mapping[str, Any],
    ranks: int,
    *,
    judge: bool = False,
) -> dict[str, Account]:
    """What a rank holds in the phases of an iteration, and while it publishes.

    Phases: `sampling` (not with servers: passing weights to them needs less than `publishing`), `scoring`,
    `passes` (before the update, without gradients), `policy` and `critic` (their updates), `publishing` (of
    rank 0). Parts: `weights`, `gradients` and `optimizer` of `policy` and `critic`; `frozen` (reference and
    reward models), with `lora` instead `base` and `adapters`; `sampler`, `cache`; `gathered`, `buffers`,
    `activations` and `logits` as in `moments`. Rows count as full: prompts and answers are as long as they
    may be.

    The critic and the reward models, with `judge` a third one, have the policy's shape.

    Args:
        settings: of the stage; its ZeRO files are read.
        config: content of the `config.json` of the model that is trained.
        ranks: number of GPUs.

    Raises:
        DataError: the config is not that of a Llama, or its context is too short for an answer.
        OSError, ValueError: a ZeRO file cannot be read.
    """
    plan = _Plan.of(settings, config, ranks, judge=judge)
    found = {
        "sampling": plan.sampling(),
        "scoring": plan.scoring(),
        "passes": plan.first_passes(),
        "policy": plan.update("policy"),
        "critic": plan.update("critic"),
        "publishing": plan.publishing(),
    }
    if isinstance(settings.sampler, VllmEngine):
        del found["sampling"]
    return found


@dataclass(frozen=True)
class _Plan:
    """The models of a run, their engines and batches.

    Attributes:
        trained: policy and critic.
        engines: of both.
        rollout: answers that are sampled together.
        batches: micro-batches of both.
    """

    settings: PpoSettings
    ranks: int
    trained: dict[str, Trained]
    engines: dict[str, Engine]
    rollout: Batch
    batches: dict[str, MicroBatch]
    scorers: Scorers

    @classmethod
    def of(cls, settings: PpoSettings, config: Mapping[str, Any], ranks: int, *, judge: bool) -> _Plan:
        shapes = {
            "policy": Shape.from_config(config),
            "critic": Shape.from_config(config, scores=True),
        }
        files = {"policy": settings.deepspeed, "critic": settings.critic_deepspeed or settings.deepspeed}
        rollout = Batch.of(settings, config, -(-settings.episodes // ranks))
        bf16 = settings.dtype == "bfloat16"
        return cls(
            settings,
            ranks,
            {name: _trained(shape, settings) for name, shape in shapes.items()},
            {name: _engine(files[name], shape, ranks, settings=settings) for name, shape in shapes.items()},
            rollout,
            _micro_batches(settings, rollout, ranks),
            Scorers(3 if judge else 2, shapes["critic"], bf16, settings.frozen_models),
        )

    @property
    def shape(self) -> Shape:
        return self.trained["policy"].shape

    @property
    def bf16(self) -> bool:
        return self.engines["policy"].precision != "fp32"

    @property
    def reference(self) -> Frozen:
        return Frozen(self.shape, self.bf16, small_too=self.engines["policy"].precision == "bf16")

    def held(self, updated: str | None = None) -> tuple[Parts, Parts]:
        """What exists in a phase. `updated`: the model that takes steps; its buffers are not included."""
        gpu, host = self.scorers.held(self.settings.lora, self.ranks)
        if self.settings.lora is None:
            found = idle([self.reference], self.settings.frozen_models, self.ranks)
        else:
            adapters = sum(adapter(self.shape, self.settings.lora))
            found = {"adapters": self.engines["policy"].width * adapters} | self._base[0], {}
        gpu, host = _sum(gpu, found[0]), _sum(host, found[1])
        for name, model in self.trained.items():
            engine = self.engines[name]
            own_parts = held(model, engine, waiting=name != updated)
            for parts, own in zip((gpu, host), own_parts, strict=True):
                parts |= {f"{name} {part}": size for part, size in own.items()}
            if name != updated:
                gpu["buffers"] = gpu.get("buffers", 0) + states.waiting_buffers(model, engine)
        return gpu, host

    @property
    def _base(self) -> tuple[Parts, Parts]:
        """The base model of the adapters, and what its passes gather; nothing without `lora`."""
        if self.settings.lora is None:
            return {}, {}
        return base_model(self.shape, bf16=self.bf16, partitioned=self._partitioned, ranks=self.ranks)

    @property
    def _partitioned(self) -> bool:
        sharded = self.settings.frozen_models == "sharded"
        return sharded or _stage(self.settings.deepspeed) == 3

    def sampling(self) -> Account:
        width = self.engines["policy"].width
        if self.settings.deepspeed is None and self.bf16:
            width = BF16
        gpu, host = self.held()
        return largest(gpu, host, {"sampling": sampling(self.shape, width, self.rollout)})

    def scoring(self) -> Account:
        gpu, host = self.held()
        parts = self.scorers.used(self.settings.lora, self.ranks, self.rollout.longest)
        return largest(gpu, host, {"scoring": parts | self._base[1]})

    def first_passes(self) -> Account:
        """Passes of policy, reference and critic, one after the other, without gradients.

        What ZeRO-3 gathers for a pass without gradients may remain until the model's next pass with them.
        """
        gpu, host = self.held()
        extra = self._base[1]
        if self.settings.lora is None:
            extra = used(self.reference, self.settings.frozen_models, self.ranks)
        activations = 0
        for name, model in self.trained.items():
            engine, batch = self.engines[name], self.batches[name]
            by = computing(model, engine)
            needed = passes.evaluation(model.shape, by, batch.tokens, loss=batch.loss)
            activations = max(activations, needed)
            extra = _sum(extra, {"gathered": states.gathered(model, engine)})
        return largest(gpu, host, {"passes": extra | {"activations": activations}})

    def update(self, name: str) -> Account:
        """Steps of a model; the critic is updated first, when the policy's last pass had no gradients."""
        gpu, host = self.held(updated=name)
        model, engine = self.trained[name], self.engines[name]
        found = moments(model, engine, self.batches[name])
        for moment in ("loss", "backward"):
            found[moment] = _sum(found[moment], self._base[1])
        if name == "critic":
            remaining = {"gathered": states.gathered(self.trained["policy"], self.engines["policy"])}
            found = {moment: _sum(parts, remaining) for moment, parts in found.items()}
        return largest(gpu, host, found)

    def publishing(self) -> Account:
        """Of rank 0, after the last iteration."""
        gpu, in_host = self.held()
        model, engine = self.trained["policy"], self.engines["policy"]
        if self.settings.lora is None:
            copies = host.published(model, engine, 0)
        else:
            copies = host.merged(model, 0) if self.settings.lora.merge else 0
        return largest(gpu, in_host | {"published": copies}, {"publishing": {}})


def _trained(shape: Shape, settings: PpoSettings) -> Trained:
    """With `lora` an adapter without its base model, which all models share."""
    if settings.lora is None:
        return Trained.whole(shape)
    tensors = adapter(shape, settings.lora)
    return Trained(shape, sum(tensors), 0, tensors)


def _engine(file: str | None, shape: Shape, ranks: int, *, settings: PpoSettings) -> Engine:
    """Without a file plain torch, without buckets. With `lora` ZeRO-3 trains the adapters as ZeRO-2 does."""
    if file is None:
        return replace(Engine.plain(1, bf16=settings.dtype == "bfloat16"), caches_copies=False)
    engine = Engine.of_file(DeepSpeedFile.read(file).content, shape, ranks, bf16=True)
    if settings.lora is not None and engine.stage == 3:
        return replace(engine, stage=2, offload_weights=False)
    return engine


def _stage(file: str | None) -> int | None:
    return None if file is None else DeepSpeedFile.read(file).zero_stage


def _micro_batches(settings: PpoSettings, rollout: Batch, ranks: int) -> dict[str, MicroBatch]:
    """The largest micro-batches of policy and critic, if rows have any length."""
    mini = -(-settings.mini_batch_size // ranks)
    rows = min(mini, settings.micro_batch_size or mini)
    tokens, checkpointing = rows * rollout.longest, settings.gradient_checkpointing
    if settings.max_tokens_per_micro_batch is not None:
        tokens = min(tokens, max(settings.max_tokens_per_micro_batch, rollout.longest))
    return {
        "policy": MicroBatch(tokens, "answers", checkpointing, min(tokens, rows * rollout.new)),
        "critic": MicroBatch(tokens, "scores", checkpointing),
    }


def _sum(*parts: Parts) -> Parts:
    total: Parts = {}
    for found in parts:
        for name, size in found.items():
            total[name] = total.get(name, 0) + size
    return total
