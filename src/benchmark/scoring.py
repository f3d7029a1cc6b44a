"""Log-probabilities of continuations; what many rows begin with is processed once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from ..batches import batches_by_length, tokens_at_once
from ..console import progress
from ..model.architecture import carries_state
from ..model.padding import pad_right
from ..processes import phase
from ..sampling.beginnings import Cluster, clusters
from ..sampling.output_layer import OutputLayer, decoder_of

LOGITS = 2**24  # logits that are computed at a time


class Continuation(NamedTuple):
    """Token ids, of which the last `scored` are scored; the model reads all but the last one."""

    ids: tuple[int, ...]
    scored: int


@phase("scoring")
@torch.no_grad()
def score_continuations(
    model: Any, rows: Sequence[Continuation], *, cached_tokens: int, label: str | None
) -> list[tuple[float, bool]]:
    """Log-probability (fp32) of each row's continuation, and whether each of its tokens is the likeliest.

    Rows with the same input share one forward pass, such as the letters A to D after one question.

    Args:
        model: a causal language model of transformers.
        cached_tokens: maximum number of tokens in the key-value cache of a batch.
        label: label of a progress bar; None shows none.
    """
    inputs: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        inputs.setdefault(row.ids[:-1], []).append(index)
    sequences = list(inputs)
    # the states that predict a continuation must be after the common beginning
    lengths = [len(ids) - max(rows[index].scored for index in inputs[ids]) for ids in sequences]
    if carries_state(model.config):  # its cache is more than keys and values
        lengths = [0] * len(sequences)
    layer = OutputLayer.of(model, None, 1.0)
    results: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
    with progress(label, len(rows), "requests") as advance:
        for cluster in clusters(sequences, lengths):
            for batch, hidden in _hidden_states(model, sequences, cluster, cached=cached_tokens):
                wanted = [
                    (place, index) for place, row in enumerate(batch) for index in inputs[sequences[row]]
                ]
                found = _score(
                    model,
                    layer,
                    hidden,
                    batch=[sequences[row] for row in batch],
                    wanted=wanted,
                    rows=rows,
                    shared=cluster.shared,
                )
                for (_, index), result in zip(wanted, found, strict=True):
                    results[index] = result
                advance(len(wanted))
    return results


def _hidden_states(
    model: Any, sequences: Sequence[Sequence[int]], cluster: Cluster, *, cached: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Yields batches of a cluster's rows and their last hidden states `[batch, tokens, width]`.

    The states are those after the common beginning.
    """
    decoder, device = decoder_of(model), model.device
    # its name since transformers 5.24, and before
    takes_cache = "cache" in inspect.signature(type(decoder).forward).parameters
    cache_name = "cache" if takes_cache else "past_key_values"
    rests = [sequences[row][cluster.shared :] for row in cluster.rows]
    at_once = tokens_at_once(device)
    beginning = None
    if cluster.shared:
        ids = torch.tensor([list(sequences[cluster.rows[0]][: cluster.shared])], device=device)
        beginning = DynamicCache(config=model.config)
        decoder(input_ids=ids, use_cache=True, **{cache_name: beginning})
    for part in batches_by_length([len(rest) for rest in rests], _most_rows(cluster, rests, cached), at_once):
        ids, _ = pad_right([rests[place] for place in part])
        cache = copy.deepcopy(beginning)
        if cache is not None:
            cache.batch_repeat_interleave(len(part))
        # attention is causal and the padding is on the right, so no mask is needed
        outputs = decoder(input_ids=ids.to(device), use_cache=cache is not None, **{cache_name: cache})
        yield [cluster.rows[place] for place in part], outputs.last_hidden_state


def _most_rows(cluster: Cluster, rests: Sequence[Sequence[int]], cached: int) -> int:
    return max(1, cached // (cluster.shared + max(map(len, rests))))


def _score(
    model: Any,
    layer: OutputLayer,
    hidden: Tensor,
    *,
    batch: Sequence[Sequence[int]],
    wanted: Sequence[tuple[int, int]],
    rows: Sequence[Continuation],
    shared: int,
) -> list[tuple[float, bool]]:
    """Scores the `wanted` (place in the batch, row), from the hidden states after the shared beginning."""
    places: list[int] = []
    positions: list[int] = []
    tokens: list[int] = []
    counts: list[int] = []
    for place, index in wanted:
        ids, count = rows[index]
        end = len(batch[place]) - shared
        places += [place] * count
        positions += range(end - count, end)
        tokens += ids[-count:]
        counts.append(count)
    states = hidden[places, positions]
    chosen = torch.tensor(tokens, device=states.device)
    head = model.get_output_embeddings()
    logprobs, likeliest = [], []
    part = max(1, LOGITS // head.out_features)
    for some, ids in zip(states.split(part), chosen.split(part), strict=True):
        logits = layer.logits(head(some))
        logprobs.append(logits.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1))
        likeliest.append(logits.argmax(-1) == ids)
    summed = [part.sum().item() for part in torch.cat(logprobs).cpu().split(counts)]
    greedy = [bool(part.all()) for part in torch.cat(likeliest).cpu().split(counts)]
    return list(zip(summed, greedy, strict=True))
