"""What torch's kernel is given, with a stand-in for it: the kernel itself needs a GPU (test_gpu.py)."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from llamita.training import varlen
from llamita.training.attention import packed_attention

LENGTHS = [[1, 31, 33, 2], [60, 7]]
POSITIONS = torch.tensor([[place for size in row for place in range(size)] for row in LENGTHS])


def by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool = False,
) -> Tensor:
    """`varlen_attn` as its documentation describes it."""
    assert query_ends.dtype == torch.int32
    assert query_ends.equal(key_ends)
    assert query.dtype in varlen.HALF
    assert enable_gqa == bool(varlen.GROUPED_HEADS)
    lengths = query_ends.diff().tolist()
    assert longest_query == longest_key == max(lengths)
    before, after = window_size
    parts = []
    for q, k, v in zip(*(states.split(lengths) for states in (query, key, value)), strict=True):
        visible = torch.ones(len(q), len(q), dtype=torch.bool).tril(after)
        visible = visible if before < 0 else visible.triu(-before)
        states = (part.transpose(0, 1)[None].double() for part in (q, k, v))
        found = F.scaled_dot_product_attention(*states, attn_mask=visible, scale=scale, enable_gqa=True)
        parts.append(found[0].transpose(0, 1))
    return torch.cat(parts).to(query.dtype)


def states(dtype: torch.dtype) -> list[Tensor]:
    draws = torch.Generator().manual_seed(0)
    rows, length = POSITIONS.shape
    return [torch.randn(rows, heads, length, 8, generator=draws).to(dtype) for heads in (4, 2, 2)]


@pytest.mark.parametrize("window", [None, 5])
def test_the_kernel_gets_the_segments_of_all_rows(
    monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    query, key, value = states(torch.bfloat16)
    mask = None if window is None else torch.tensor(window).view(1, 1, 1, 1)
    options: dict[str, Any] = {"scaling": 0.3, "dropout": 0.0}
    wanted, _ = packed_attention(nn.Module(), query, key, value, mask, POSITIONS, **options)
    monkeypatch.setattr(varlen, "varlen_attn", by_segment)
    monkeypatch.setattr(varlen, "runs_here", lambda *_: True)
    found, _ = packed_attention(nn.Module(), query, key, value, mask, POSITIONS, **options)
    assert found.shape == (2, 67, 4, 8)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-2)


def test_rows_with_the_same_segments_may_share_their_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = states(torch.bfloat16)
    monkeypatch.setattr(varlen, "varlen_attn", by_segment)
    one, both = (
        varlen.varlen_attention(query, key, value, position_ids=positions, window=None, scaling=None)
        for positions in (POSITIONS[:1], POSITIONS[:1].repeat(2, 1))
    )
    assert one.equal(both)


def test_on_a_cpu_the_kernel_is_not_used() -> None:
    query, _, value = states(torch.bfloat16)
    assert not varlen.runs_here(query, value, {})


class OnGpu:
    """States on a GPU, as far as `runs_here` looks."""

    is_cuda, device = True, "cuda:0"

    def __init__(self, dtype: torch.dtype = torch.bfloat16, size: int = 128) -> None:
        self.dtype, self.shape = dtype, (1, 4, 7, size)


@pytest.mark.parametrize(
    ("query", "value", "options", "capability", "runs"),
    [
        (OnGpu(), OnGpu(), {"scaling": 0.1, "dropout": 0.0, "softcap": None}, (8, 0), True),
        (OnGpu(torch.float16), OnGpu(), {}, (9, 0), True),
        (OnGpu(torch.float32), OnGpu(), {}, (9, 0), False),
        (OnGpu(), OnGpu(), {}, (7, 5), False),
        (OnGpu(size=100), OnGpu(size=100), {}, (9, 0), False),
        (OnGpu(size=512), OnGpu(size=512), {}, (9, 0), False),
        (OnGpu(), OnGpu(size=64), {}, (9, 0), False),
        (OnGpu(), OnGpu(), {"dropout": 0.1}, (9, 0), False),
        (OnGpu(), OnGpu(), {"softcap": 30.0}, (9, 0), False),
        (OnGpu(), OnGpu(), {"s_aux": torch.zeros(4)}, (9, 0), False),
    ],
)
def test_the_kernel_is_used_where_it_runs(
    monkeypatch: pytest.MonkeyPatch,
    query: Any,
    value: Any,
    options: dict[str, Any],
    capability: tuple[int, int],
    runs: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert varlen.runs_here(query, value, options) is runs


def test_torch_still_has_the_arguments_that_are_passed() -> None:
    names = inspect.signature(varlen_attn).parameters
    assert list(names)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert {"scale", "window_size"} <= names.keys()
