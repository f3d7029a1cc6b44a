"""Sizes of what the parts of `gpu.py` make: matrices, models, rows of random tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamita.model.sizes import ModelSize

Result = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """A model and the steps that it is trained for.

    Attributes:
        rows: of a micro-batch.
        accumulation: micro-batches of a step.
        mean_length: mean number of tokens of documents and dialogues.
        compiler: torch's backend.
    """

    model: ModelSize
    vocabulary: int
    rows: int
    accumulation: int
    steps: int
    mean_length: int
    compiler: str = "inductor"

    @property
    def context(self) -> int:
        """Tokens of a row."""
        return self.model.max_position_embeddings


@dataclass(frozen=True)
class Sizes:
    """How large everything is that a part makes.

    Attributes:
        pipeline: overrides and options of `llamita run`.
        matrices: numbers of rows and columns.
        speed: what is trained to measure speed and memory.
        losses: what is trained on the CPU and on the GPU to compare losses.
        prompt: tokens of a prompt; `new_tokens` of its answer; `batches`: answers side by side.
        episodes: answers of an iteration of PPO; `micro_batch`: those of a forward pass with gradient.
    """

    pipeline: tuple[str, ...]
    matrices: tuple[int, ...]
    speed: Training
    losses: Training
    prompt: int
    new_tokens: int
    batches: tuple[int, ...]
    rounds: int
    episodes: int
    micro_batch: int


def _shape(width: int, layers: int, heads: int, context: int) -> ModelSize:
    return ModelSize(
        hidden_size=width,
        intermediate_size=width * 43 // 16,  # Llama 2's share at 7B
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
    )


FULL = Sizes(
    pipeline=(),
    matrices=(4096, 8192, 16384),
    speed=Training(_shape(2048, 20, 16, 4096), 32_000, rows=2, accumulation=2, steps=12, mean_length=700),
    losses=Training(_shape(256, 8, 4, 256), 8_192, rows=2, accumulation=1, steps=20, mean_length=80),
    prompt=128,
    new_tokens=256,
    batches=(32, 128),
    rounds=2,
    episodes=64,
    micro_batch=8,
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
    speed=Training(
        _shape(32, 2, 2, 64), 256, rows=2, accumulation=2, steps=8, mean_length=20, compiler="aot_eager"
    ),
    losses=Training(_shape(32, 2, 2, 64), 256, rows=2, accumulation=1, steps=20, mean_length=20),
    prompt=8,
    new_tokens=8,
    batches=(4,),
    rounds=1,
    episodes=8,
    micro_batch=4,
)


def new_model(sizes: Training, device: Any, dtype: str = "float32") -> Any:
    """A Llama with random weights, drawn on `device`; those drawn on the CPU are the same on all machines."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(sizes.model.llama_config(sizes.vocabulary))
    return model.to(getattr(torch, dtype))


def document_rows(sizes: Training, mean_length: int | None, folder: Path) -> Any:
    """Rows of documents with exponentially distributed lengths, or (None) of one document each."""
    import numpy as np

    from llamita.corpus.encoder import EncodedDocuments
    from llamita.corpus.shards import ShardWriter, TokenShards
    from llamita.corpus.token_rows import TokenRows

    draw = np.random.default_rng(0)
    rows = sizes.rows * sizes.accumulation * sizes.steps
    lengths = np.full(rows, sizes.context)
    if mean_length is not None:
        count = 2 * rows * sizes.context // mean_length + 2
        lengths = 2 + draw.exponential(mean_length, count).astype(np.int64)
    writer = ShardWriter(folder, sizes.vocabulary, [])
    writer.append(EncodedDocuments(_tokens(draw, int(lengths.sum()), sizes.vocabulary), lengths))
    writer.finish("")
    return TokenRows([TokenShards(folder)], sizes.context, isolate_documents=True)


def dialogue_rows(sizes: Training) -> Any:
    """Packed rows of dialogues whose first two fifths, the prompts, are not trained."""
    import datasets
    import numpy as np

    from llamita.chat_format.packed_rows import PackedRows
    from llamita.chat_format.packing import packed_row, plan_rows
    from llamita.model.padding import UNTRAINED

    draw = np.random.default_rng(1)
    length = sizes.context
    count = 2 * sizes.rows * sizes.accumulation * sizes.steps * length // sizes.mean_length
    lengths = (4 + draw.exponential(sizes.mean_length, count)).astype(np.int64).clip(max=length)
    ids = [_tokens(draw, size, sizes.vocabulary).astype(np.int32) for size in lengths.tolist()]
    labels = [dialogue.copy() for dialogue in ids]
    for dialogue in labels:
        dialogue[: max(1, 2 * len(dialogue) // 5)] = UNTRAINED
    rows = [
        packed_row([ids[i] for i in plan], [labels[i] for i in plan], length, pad_token_id=0)
        for plan in plan_rows(lengths.tolist(), length, seed=0)
    ]
    columns = {name: [row[name] for row in rows] for name in ("input_ids", "labels", "position_ids")}  # type: ignore[literal-required]  # names of the TypedDict
    facts = {"counts": {}, "positions": int(sum(row["position_ids"].sum() for row in rows))}
    return PackedRows(datasets.Dataset.from_dict(columns), length, facts)


def _tokens(draw: Any, count: int, vocabulary: int) -> Any:
    """Random ids, uint32: some are frequent, so that a model can learn their frequencies."""
    return (3 + (vocabulary - 3) * draw.random(count) ** 3).astype("uint32")


def dialogue_tokenizer() -> Any:
    """A tokenizer with Llama's special ids, for trainers that need one; nothing is tokenized."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    special = {"<unk>": 0, "<s>": 1, "</s>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(special, unk_token="<unk>")),
        unk_token="<unk>",
        pad_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )
