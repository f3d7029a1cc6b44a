"""Restarts, interruptions and other ranks, step by step, and what a run that was killed leaves."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamita.errors import ConfigError, LlamitaError
from llamita.processes import ACTIVITY
from llamita.sampling.decoding import Decoding
from llamita.sampling.settings import StartedServers, VllmEngine
from llamita.sampling.vllm import servers as servers_module
from llamita.sampling.vllm import sharing
from llamita.sampling.vllm.client import Answer, Client, Request, ServerFault
from llamita.sampling.vllm.process import ServerProcess
from llamita.sampling.vllm.servers import Server, Servers

from ...helpers.fake_vllm import fake_vllm
from ...helpers.fake_vllm_client import free_port
from ...helpers.served import open_sampler
from ...helpers.waiting import wait_until

ANSWER = Answer([2], [0.0], True)


def request(seed: int) -> Request:
    return Request([1], 1, seed, 4, Decoding())


class OneServer:
    """A server that ends at the first request and is repaired when the test says so."""

    def __init__(self) -> None:
        self.members = [Server(Client("http://localhost:1", 1.0, 4))]
        self.died, self.repaired = threading.Event(), threading.Event()

    def repair(self, server: Server, fault: ServerFault, life: int) -> None:
        self.repaired.wait(10)
        server.life = 1


def test_no_request_is_sent_again_before_its_server_is_repaired() -> None:
    """Another thread of the same server that has got its answer would take it, and it would fail twice."""
    servers, sent = OneServer(), []

    def complete(_client: Any, _model: Any, one: Request) -> list[Answer]:
        alive = not servers.died.is_set() or servers.repaired.is_set()
        sent.append(one.seed)
        if one.seed == 0 and alive and not servers.repaired.is_set():
            servers.died.set()
            raise ServerFault("ended")
        if one.seed == 1:  # has its answer when the server has ended
            servers.died.wait(10)
            time.sleep(0.1)
        elif not alive:
            threading.Timer(0.1, servers.repaired.set).start()
            raise ServerFault("connection refused")
        return [ANSWER]

    found = sharing.share_out(
        servers,  # type: ignore[arg-type]  # a fake
        [request(seed) for seed in range(3)],
        complete,
        parallel=2,
        advance=lambda _: None,
    )
    assert found == [[ANSWER]] * 3
    assert sorted(sent) == [0, 0, 1, 2, 2]


def test_a_server_that_cannot_be_repaired_is_no_longer_watched_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "POLL", 0.01)
    start = {"python": sys.executable, "count": 2, "port": free_port()}
    servers = Servers(
        VllmEngine.model_validate({"engine": "vllm", "start": start}), None, dtype="float32", working=tmp_path
    )
    repairs: list[int] = []

    def repair(server: Server, *_: object) -> None:
        repairs.append(servers.members.index(server))
        if repairs[-1] == 0:
            raise LlamitaError("failed again after its restart")
        if repairs.count(1) == 3:
            servers._closed.set()

    monkeypatch.setattr(ServerProcess, "exit_code", property(lambda _: 1))
    monkeypatch.setattr(servers, "repair", repair)
    watch = threading.Thread(target=servers._watch, daemon=True)
    watch.start()
    watch.join(10)
    assert repairs == [0, 1, 1, 1]


def test_a_rank_that_waits_for_an_answer_is_not_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of a request ends it, and its message names the server."""
    monkeypatch.setattr(sharing, "WAIT", 0.05)
    before = ACTIVITY.progress

    def complete(*_: Any) -> list[Answer]:
        time.sleep(0.5)
        return [ANSWER]

    sharing.share_out(
        OneServer(),  # type: ignore[arg-type]  # a fake
        [request(0)],
        complete,
        parallel=1,
        advance=lambda _: None,
    )
    assert ACTIVITY.progress > before + 2


def running(url: str, working: Path, start: dict[str, Any] | None = None) -> Servers:
    """Servers that another process has started; `start`: that of rank 0, as another rank sees them."""
    where = {"urls": [url]} if start is None else {"start": start}
    settings = VllmEngine.model_validate({"engine": "vllm", "timeout": 5.0, **where})
    return Servers(settings, [url], dtype="float32", working=working)


def test_weights_are_passed_after_a_restart_that_is_under_way(folder: Path, tmp_path: Path) -> None:
    """It has begun with the weights before."""
    with fake_vllm(folder) as server:
        servers = running(server.url, tmp_path)
        servers.start(folder)
        loading = threading.Thread(target=servers.load, args=(folder,))
        with servers.members[0].repairing:
            loading.start()
            time.sleep(0.3)
            assert server.requests == []
        loading.join(10)
        assert [route for route, _ in server.requests] == ["/collective_rpc", "/reset_prefix_cache"]
        servers.close()


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Ctrl-C after some seconds."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("what", ["load", "sample"])
def test_ctrl_c_waits_for_no_server(
    what: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def wait(*_: Any, **__: Any) -> Any:
        ended.wait(6)
        raise ServerFault("connection closed")

    with fake_vllm(folder) as server:
        sampler = open_sampler([server.url], folder, tmp_path)
        monkeypatch.setattr(Client, "reload", wait)
        monkeypatch.setattr(Client, "complete", wait)
        started = time.monotonic()
        with interrupted_after(0.3):
            if what == "load":
                sampler._servers.load(folder)
            else:
                sampler.sample([[1, 5]], 4)
        sampler.close()
        assert time.monotonic() - started < 3
        ended.set()


def test_a_closed_client_is_not_healthy(folder: Path) -> None:
    """Not an error: threads that repair a server may still ask."""
    with fake_vllm(folder) as server:
        client = Client(server.url, 1.0, 1)
        assert client.is_healthy()
        client.close()
        assert not client.is_healthy()


def test_nothing_is_restarted_after_the_end(folder: Path, tmp_path: Path) -> None:
    started: list[Path] = []
    servers = running("http://localhost:1", tmp_path)
    server = servers.members[0]
    server.process = SimpleNamespace(  # type: ignore[assignment]  # a fake
        start=started.append, stop=lambda: None, end=lambda: None, exit_code=1, last_lines=lambda: "the log"
    )
    servers._folder = folder
    servers.close()
    for fault in (ServerFault("ended"), ServerFault("no response", hangs=True)):
        with pytest.raises(LlamitaError, match="the log"):
            servers.repair(server, fault, 0)
    with pytest.raises(LlamitaError, match="the log"):
        servers.load(folder)
    assert started == []


def test_a_server_is_restarted_once(folder: Path, tmp_path: Path) -> None:
    started: list[Path] = []
    servers = running("http://localhost:1", tmp_path)
    server = servers.members[0]
    server.process = SimpleNamespace(  # type: ignore[assignment]  # a fake
        start=started.append,
        stop=lambda: None,
        end=lambda: None,
        exit_code=1,
        ends_within=lambda _: 1,
        last_lines=lambda: "the log",
    )
    servers._folder, server.life = folder, 1
    with pytest.raises(LlamitaError, match=r"(?s)failed again after its restart: ended .*code 1.*the log"):
        servers.repair(server, ServerFault("ended"), 1)
    servers.repair(server, ServerFault("ended"), 0)  # a request of its former life
    assert started == []


# ------------------------------------------------------------------------------- other ranks


START = {"python": "/python", "start_timeout": 20.0}


def test_another_rank_waits_for_the_restart_of_a_server_that_hangs(folder: Path, tmp_path: Path) -> None:
    with fake_vllm(folder) as first:
        port = first.url.rsplit(":", 1)[1]
        servers = running(first.url, tmp_path, START)
        servers.start(folder)
        fault = ServerFault("no response", hangs=True)
        repaired = threading.Thread(target=servers.repair, args=(servers.members[0], fault, 0))
        repaired.start()
        time.sleep(0.3)
        assert repaired.is_alive()
    time.sleep(2 * servers_module.POLL)
    with fake_vllm(folder, "--port", port):  # rank 0 has restarted it
        repaired.join(10)
        assert not repaired.is_alive()
        servers.repair(
            servers.members[0], fault, 0
        )  # of another request that hung: nothing is left to wait for
    servers.close()


def test_another_rank_does_not_wait_for_ever(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "RETURN_TIMEOUT", -4.5)
    with fake_vllm(folder) as server:
        servers = running(server.url, tmp_path, START)
        with pytest.raises(LlamitaError, match="no response"):
            servers.repair(servers.members[0], ServerFault("no response", hangs=True), 0)
        servers.close()


def test_another_rank_that_cannot_reach_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_module, "RETURN_TIMEOUT", 0.2)
    monkeypatch.setenv("RANK", "3")
    servers = running(f"http://127.0.0.1:{free_port()}", tmp_path, START)
    with pytest.raises(LlamitaError, match=r"not ready in 0.2 s.*rank 3 cannot.*set sampler.start.host"):
        servers.start(tmp_path)


# ------------------------------------------------------------------------------- processes


def server_process(tmp_path: Path, port: int, python: Path | None = None) -> ServerProcess:
    script = python or tmp_path / "python"
    if python is None:
        script.write_text("#!/bin/sh\nexec sleep 600\n")
        script.chmod(0o755)
    settings = StartedServers(python=str(script), port=port)
    return ServerProcess(settings, 0, dtype="float32", logs=tmp_path)


def test_a_port_that_a_killed_run_still_uses_becomes_free(tmp_path: Path) -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        process = server_process(tmp_path, used.getsockname()[1])
        threading.Timer(0.7, used.close).start()
        process.start(tmp_path)
    process.stop()


def test_a_host_that_does_not_exist(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.touch()
    settings = StartedServers(python=str(script), port=free_port(), host="no.such.host.invalid")
    process = ServerProcess(settings, 0, dtype="float32", logs=tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be used: .*another port or host"):
        process.start(tmp_path)


def test_a_server_does_not_see_the_launcher_of_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    names += ["TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RUN_ID", "GROUP_RANK", "ROLE_NAME"]
    for name in names:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    environment = server_process(tmp_path, free_port())._environment()
    assert environment.keys().isdisjoint(names)
    assert environment["NCCL_DEBUG"] == "INFO"
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"


def test_only_the_stage_ends_a_server(tmp_path: Path) -> None:
    """The guard is in no process group of the stage, whose signals it would get, and ignores other ones."""
    process = server_process(tmp_path, free_port())
    process.start(tmp_path)
    guard = process._process
    assert guard is not None
    children = Path(f"/proc/{guard.pid}/task/{guard.pid}/children")
    wait_until(lambda: children.read_text() != "")
    assert os.getpgid(guard.pid) != os.getpgid(0)
    server = int(children.read_text())
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        os.kill(guard.pid, number)
    time.sleep(0.3)
    assert guard.poll() is None
    ignored = next(
        line for line in Path(f"/proc/{server}/status").read_text().splitlines() if line.startswith("SigIgn")
    )
    assert not int(ignored.split()[1], 16) & sum(
        1 << (n - 1) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    ), "the server inherits no ignored signals"
    process.stop()
    assert not Path(f"/proc/{server}").exists()


def test_all_servers_end_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that take long to end do so together."""
    order: list[str] = []
    servers = running("http://localhost:1", tmp_path)
    servers.members.append(Server(Client("http://localhost:2", 1.0, 1)))
    for number, server in enumerate(servers.members):
        server.process = SimpleNamespace(  # type: ignore[assignment]  # a fake
            end=lambda number=number: order.append(f"end {number}"),
            stop=lambda number=number: order.append(f"stop {number}"),
        )
    servers.close()
    assert order == ["end 0", "end 1", "stop 0", "stop 1"]
