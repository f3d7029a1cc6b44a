"""Which device a rank computes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llamita.distributed.device import _disable_cudnn_attention, device, fixed_shapes, report_slow_bf16
from llamita.model.checkpoint import load_causal_lm
from llamita.model.precision import computing_in

from ..helpers.tiny import save_tiny_model


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU nothing is reported")
@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_on_a_cpu_without_its_instructions_is_reported_once(
    has_bf16: bool,
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("llamita.distributed.device._has_bf16", lambda: has_bf16)
    folder = save_tiny_model(tmp_path / "model", tokenizer)
    for use in (
        lambda: load_causal_lm(folder, "bfloat16"),
        lambda: computing_in("bfloat16", "cpu"),
    ):
        report_slow_bf16.cache_clear()
        use()
        use()
        output = capsys.readouterr().out
        assert output.count("no instructions for bfloat16") == (0 if has_bf16 else 1)
    report_slow_bf16.cache_clear()
    computing_in("float32", "cpu")
    load_causal_lm(folder)
    assert "bfloat16" not in capsys.readouterr().out
