"""Bytes of activations and logits of one micro-batch on one rank.

Counted in transformers' Llama (models/llama/modeling_llama.py), with an attention kernel that saves neither
scores nor a mask (flash attention, sdpa without a mask, the project's own segment by segment): what autograd
saves for each token, and the largest temporary tensors. tests/memory/test_passes.py compares with the peak of
forward and backward passes of the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .engine import BF16, FP32, Engine, Precision
from .shape import Shape

# How logits become a loss: `whole`: all logits at once (`LlamaForCausalLM`); `chunked`: TRL's fused head,
# which recomputes them tile by tile; `answers`: PPO's log-probabilities of answer tokens, which recomputes
# them part by part (`sampling/output_layer.py`); `scores`: those of a reward model or a critic.
Loss = Literal["whole", "chunked", "answers", "scores"]

EVALUATED_AT_ONCE = 1024  # tokens, of pretrain/bits_per_byte.py
SCORED_AT_ONCE = 65_536  # tokens of a pass without gradients on a GPU, of batches.py
PART = 2**24  # logits, of sampling/output_layer.py
TILE = 4096, 32_768  # tokens and logits: TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE of TRL 1.16


@dataclass(frozen=True)
class MicroBatch:
    """Tokens of a forward and backward pass on one rank, pads included, and what is saved between the two.

    Attributes:
        checkpointing: whether only the input of each layer is saved (`gradient_checkpointing`).
        answers: tokens whose log-probabilities are computed, with the loss `answers`.
    """

    tokens: int
    loss: Loss
    checkpointing: bool
    answers: int = 0


# For each precision, bytes for each element of a token's hidden state that a norm saves before attention
# (inputs of 3 matrices) and before the feed-forward layer (2). The norm saves its input and the normalized
# state. In bf16 it computes in fp32: 4 + 2, and the matrices share one input of 2. Autocast has a residual
# stream in fp32 and a copy in bf16 for each matrix: 4 + 4 + 2 * matrices. In fp32: 4 + 4 + 4.
_NORMS: dict[Precision, tuple[int, int]] = {"bf16": (8, 8), "autocast": (14, 12), "fp32": (12, 12)}
# Bytes of an element of the residual stream, and what the last norm and the output layer save.
_RESIDUAL: dict[Precision, int] = {"bf16": BF16, "autocast": FP32, "fp32": FP32}
_LAST_NORM: dict[Precision, int] = {"bf16": 8, "autocast": 10, "fp32": 12}


def layer(shape: Shape, engine: Engine) -> int:
    """Bytes for each token that one layer saves.

    Norms; queries, keys, values, output and (fp32) log-sum-exp of attention; in the feed-forward layer gate,
    its activation, up, and their product.
    """
    width = FP32 if engine.precision == "fp32" else BF16
    norms = sum(_NORMS[engine.precision]) * shape.hidden_size + 2 * FP32
    attention = width * (2 * shape.queries + 2 * shape.keys) + FP32 * shape.num_attention_heads
    return norms + attention + width * 4 * shape.intermediate_size


def stored(shape: Shape, engine: Engine, batch: MicroBatch) -> int:
    """Activations that exist when the backward pass begins: of all layers, or only their inputs."""
    kept = layer(shape, engine)
    if batch.checkpointing:
        kept = _RESIDUAL[engine.precision] * shape.hidden_size
    return batch.tokens * (shape.num_hidden_layers * kept + _LAST_NORM[engine.precision] * shape.hidden_size)


def backward(shape: Shape, engine: Engine, batch: MicroBatch) -> int:
    """Activations during the backward pass of the last layer, with the gradients of its feed-forward part.

    With checkpointing the layer's activations exist besides the inputs of all layers; what the last norm
    saved is freed.
    """
    width = FP32 if engine.precision == "fp32" else BF16
    inner = width * (shape.hidden_size + shape.intermediate_size) * batch.tokens
    if not batch.checkpointing:
        return stored(shape, engine, batch) + inner
    inputs = shape.num_hidden_layers * _RESIDUAL[engine.precision] * shape.hidden_size
    return batch.tokens * (inputs + layer(shape, engine)) + inner


def logits(shape: Shape, engine: Engine, batch: MicroBatch) -> int:
    """Bytes of logits and what is computed from them.

    - `whole`: three tensors in fp32 at the beginning of the backward pass: log-probabilities, their gradient,
      and the logits' gradient (`ForCausalLMLoss`: logits in fp32, cross entropy). Before, in the forward
      pass, they are logits in bf16 and fp32 and log-probabilities: less.
    - `chunked`: a tile; gradients of the hidden states and of the output layer in fp32 and once more in their
      own precision; the trained tokens' hidden states, at most all.
    - `answers`: a part; the hidden states of answer tokens, their gradients in fp32 and in their own
      precision, and the gradients of all tokens' hidden states; the gradient of the output layer.
    - `scores`: nothing worth counting.
    """
    if batch.loss == "whole":
        return 3 * FP32 * batch.tokens * shape.vocab_size
    if batch.loss == "scores":
        return FP32 * batch.tokens
    width = FP32 if engine.precision == "fp32" else BF16
    if batch.loss == "answers":
        states = (2 * width + FP32) * batch.answers + width * batch.tokens
        return part(shape, batch.answers) + states * shape.hidden_size + engine.width * shape.embeddings
    tile = width * min(batch.tokens, TILE[0]) * min(shape.vocab_size, TILE[1])
    hidden = (width + FP32 + width) * batch.tokens * shape.hidden_size
    return tile + hidden + (FP32 + engine.width) * shape.embeddings


def part(shape: Shape, answers: int) -> int:
    """The logits that are computed at a time, in fp32: logits, probabilities, and one temporary tensor."""
    return 3 * FP32 * min(PART, answers * shape.vocab_size)


def evaluation(shape: Shape, engine: Engine, tokens: int, *, loss: Loss) -> int:
    """Activations, logits and autocast's copies of weights in a forward pass without gradients, at most.

    In a layer: embeddings, input, the state after attention, the same normed, and three tensors of the
    feed-forward part. With the loss `answers` then a part of the logits. Of other language models all logits
    in their own precision (autocast also copies them to fp32), and in fp32 those of a part, if they were in
    bf16, with their log-probabilities (`pretrain/bits_per_byte.py`).
    """
    width = FP32 if engine.precision == "fp32" else BF16
    hidden = _RESIDUAL[engine.precision] * shape.hidden_size
    of_layer = tokens * (4 * hidden + 3 * width * shape.intermediate_size)
    of_layer += copies(shape, engine, "scores", saved=False)
    if loss == "scores":
        return of_layer
    if loss == "answers":
        return max(of_layer, 2 * hidden * tokens + part(shape, tokens))
    in_own = width * tokens * shape.vocab_size + copies(shape, engine, loss, saved=False)
    copied = FP32 if engine.precision == "autocast" else 0  # after autocast, which frees its other copies
    parts = (2 if engine.precision == "bf16" else 1) * FP32 * min(tokens, EVALUATED_AT_ONCE)
    return max(of_layer, hidden * tokens + in_own, shape.vocab_size * (tokens * (width + copied) + parts))


def copies(shape: Shape, engine: Engine, loss: Loss, *, saved: bool) -> int:
    """Autocast's copies of matrices in bf16 at the end of the forward pass, at most.

    Of all matrices if autocast caches them or if they are `saved` for the backward pass (without
    checkpointing), otherwise of the largest one. TRL's fused head copies in tiles.
    """
    if engine.precision != "autocast":
        return 0
    head = shape.embeddings if loss == "whole" else 0
    if engine.caches_copies or saved:
        return BF16 * (shape.num_hidden_layers * shape.layer_matrices + head)
    return BF16 * max(head, *(inputs * outputs for inputs, outputs in shape.matrices.values()))


def backward_copies(shape: Shape, engine: Engine, batch: MicroBatch) -> int:
    """Those of `copies` that exist in the backward pass of a layer."""
    if engine.precision != "autocast":
        return 0
    if batch.checkpointing:
        return BF16 * shape.layer_matrices
    return copies(shape, engine, batch.loss, saved=True)
