"""Each fault of a server ends in a restart or in a message that names it; nothing hangs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamita.errors import ConfigError, LlamitaError
from llamita.sampling.settings import VllmEngine
from llamita.sampling.vllm import process as process_module
from llamita.sampling.vllm.sampler import VllmSampler

from ...helpers.fake_vllm import FakeVllm, fake_vllm
from ...helpers.fake_vllm_client import free_port
from ...helpers.fake_vllm_faults import Faults
from ...helpers.fake_vllm_process import fake_python
from ...helpers.served import open_sampler
from ...helpers.tiny import ragged_prompts

PROMPTS = ragged_prompts(12)
Start = Callable[..., VllmSampler]


def answers(sampler: VllmSampler) -> list[list[int]]:
    return sampler.sample(PROMPTS, 8, 2, seed=1).answer_ids


# ----------------------------------------------------------------------- servers that run already


@pytest.mark.parametrize("spoil", ["token_ids", "choices", "finish_reason", "connection"])
def test_half_an_answer_is_requested_again_and_then_an_error(
    sampler: VllmSampler, servers: list[FakeVllm], spoil: Any
) -> None:
    expected = answers(sampler)
    servers[0].faults.spoil = spoil
    with pytest.raises(
        LlamitaError, match=rf"server {servers[0].url} .*a request has failed twice.*look at its log"
    ):
        answers(sampler)
    servers[0].faults.spoil = None
    assert answers(sampler) == expected


def test_status_500(sampler: VllmSampler, servers: list[FakeVllm]) -> None:
    servers[1].faults.fail_after = 0
    with pytest.raises(
        LlamitaError, match=rf"server {servers[1].url} /v1/completions: status 500: .*fault of the fake"
    ):
        answers(sampler)


def test_a_running_server_that_hangs(folder: Path, tmp_path: Path) -> None:
    with (
        fake_vllm(folder) as server,
        open_sampler([server.url], folder, tmp_path, timeout=1.0) as sampler,
    ):
        server.faults.hang_after = 0
        with pytest.raises(
            LlamitaError, match=rf"server {server.url} no response to /v1/completions in 1 s; look"
        ):
            answers(sampler)


def test_a_running_server_that_is_restarted_by_others(folder: Path, tmp_path: Path) -> None:
    with fake_vllm(folder) as server:
        port = server.url.rsplit(":", 1)[1]
        with open_sampler([server.url], folder, tmp_path) as sampler:
            expected = answers(sampler)
            server.stop()
            with fake_vllm(folder, "--port", port):
                assert answers(sampler) == expected, "connections of its former life are renewed"


# ------------------------------------------------------------------------ servers of the stage


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Start:
    """Starts a sampler with a server of its own."""

    def started(faults: Faults | None = None, **settings: Any) -> VllmSampler:
        python = str(fake_python(tmp_path / "environment", faults))
        servers = {"python": python, "port": free_port(), "start_timeout": 60.0} | settings.pop("start", {})
        engine = {"engine": "vllm", "start": servers, "timeout": 30.0} | settings
        return VllmSampler(
            VllmEngine.model_validate(engine), folder, dtype="float32", working=tmp_path / "work"
        )

    return started


def test_servers_are_started_and_stopped(start: Start, folder: Path, tmp_path: Path) -> None:
    with start(start={"count": 2}) as sampler:
        processes = [server.process for server in sampler._servers.members]
        assert len(processes) == 2
        with fake_vllm(folder) as server, open_sampler([server.url], folder, tmp_path) as other:
            assert answers(sampler) == answers(other)
        assert all(process.exit_code is None for process in processes)
    assert all(process._process is None for process in processes)
    with pytest.raises(LlamitaError):
        answers(sampler)


def test_a_server_that_dies_is_restarted_once(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Faults(die_after=12, marker=str(tmp_path / "marker"))
    with start(fault) as sampler:
        first = answers(sampler)
        output = capsys.readouterr().out
        assert re.search(
            r"ended with exit code 1; restarting it, once; its last lines:\n.*EngineCore", output, re.S
        )
        assert f"log: {tmp_path / 'work'}" in output
        assert answers(sampler) == first


def test_a_server_that_hangs_is_restarted_once_and_has_the_newest_weights(
    start: Start, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from llamita.model.checkpoint import load_causal_lm
    from llamita.sampling.engines import local_sampler

    model = load_causal_lm(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    expected = local_sampler(model).sample(PROMPTS, 8, temperature=0).answer_ids
    fault = Faults(hang_after=20, marker=str(tmp_path / "marker"))
    with start(fault, timeout=2.0) as sampler:
        sampler.sync(model, 1)
        assert sampler.sample(PROMPTS, 8, temperature=0).answer_ids == expected
        assert "no response to /v1/completions in 2 s; restarting it, once" in capsys.readouterr().out


@pytest.mark.parametrize("answered", [1, 5])
def test_a_server_that_dies_while_it_gets_weights(
    answered: int, start: Start, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before or after it has loaded them: it is restarted with the newest ones."""
    import torch

    from llamita.model.checkpoint import load_causal_lm
    from llamita.sampling.engines import local_sampler

    model = load_causal_lm(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    expected = local_sampler(model).sample(PROMPTS, 8, temperature=0).answer_ids
    with start(Faults(die_after=answered, marker=str(tmp_path / "marker"))) as sampler:
        sampler.sync(model, 1)
        assert sampler.sample(PROMPTS, 8, temperature=0).answer_ids == expected
    assert "restarting it, once" in capsys.readouterr().out


def test_a_server_that_dies_twice_ends_the_stage(start: Start, tmp_path: Path) -> None:
    with start(Faults(die_after=4)) as sampler, pytest.raises(LlamitaError) as error:
        answers(sampler)
    message = str(error.value)
    assert message.startswith("sampler, sampling: server http://127.0.0.1:")
    assert "failed again after its restart" in message or "a request has failed twice" in message
    assert "run the same command to resume" in message
    assert "EngineCore encountered an issue" in message, "the last lines of its log"


def test_a_server_that_dies_at_its_start(start: Start) -> None:
    with pytest.raises(LlamitaError, match=r"(?s)exit code 1 while it started.*Engine core init.*log: "):
        start(Faults(die_at_start=True))


def test_a_server_that_is_never_ready(start: Start) -> None:
    with pytest.raises(LlamitaError, match=r"was not ready in 3 s.*"):
        start(Faults(never_healthy=True), start={"start_timeout": 3.0})


def test_a_missing_python_and_a_port_in_use(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "PORT_TIMEOUT", 0.1)
    with pytest.raises(ConfigError, match=r"sampler.start.python: no such file: /none; expected the Python"):
        start(start={"python": "/none"})
    with fake_vllm(folder) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(
            ConfigError, match=rf"127.0.0.1:{port} cannot be used: Address already in use; end what uses it"
        ):
            start(start={"port": port})
