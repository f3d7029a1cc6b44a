"""Which device a rank computes on."""

from __future__ import annotations

import pytest
import torch

from llamita.distributed.device import _disable_cudnn_attention, device, fixed_shapes


def test_without_a_gpu_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device() == torch.device("cpu")


@pytest.mark.parametrize(("rank", "index"), [(None, 0), ("", 0), ("0", 0), ("3", 3)])
def test_each_rank_has_the_gpu_of_its_local_rank(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, index: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert device() == torch.device("cuda", index)


def test_cudnn_attention_is_used_for_fixed_shapes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    _disable_cudnn_attention.cache_clear()
    torch.backends.cuda.enable_cudnn_sdp(True)
    device()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    with fixed_shapes():
        device()
        assert torch.backends.cuda.cudnn_sdp_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
