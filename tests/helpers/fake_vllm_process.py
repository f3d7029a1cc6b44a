"""A fake vLLM server as a process, and the script that starts it in place of an environment's `python`."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import sys
import traceback
from pathlib import Path

from .fake_vllm_faults import VARIABLE, Faults, read_faults
from .repository import REPOSITORY


def fake_python(folder: Path, faults: Faults | None = None) -> Path:
    """Writes `folder/bin/python`, which starts the fake where an environment's `python` starts vLLM.

    Args:
        faults: those of each server that it starts; a server with the environment variable
            `FAKE_VLLM_FAULTS` has those that it holds instead.

    Returns:
        The script. It ignores `-m` and the module's name.
    """
    script = folder / "bin" / "python"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(
        "#!/bin/sh\n"
        "shift 2 # -m vllm.entrypoints.openai.api_server\n"
        f'[ -n "${VARIABLE}" ] || export {VARIABLE}={shlex.quote((faults or Faults()).to_json())}\n'
        f"export PYTHONPATH={shlex.quote(str(REPOSITORY))}\n"
        f'exec {shlex.quote(sys.executable)} -m tests.helpers.fake_vllm_process "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def main() -> None:
    """Serves until SIGTERM, at which the process exits with status 0, as vLLM does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    faults = read_faults().of_this_life()
    if faults.die_at_start:
        raise RuntimeError("Engine core initialization failed (a fault of the fake server)")
    if faults.never_healthy:
        print("never healthy (a fault of the fake server)", flush=True)
        signal.pause()
    _serve(sys.argv[1:], faults)


def _serve(arguments: list[str], faults: Faults) -> None:
    from .fake_vllm import FakeVllm, parse_options  # imports torch, which takes seconds

    class FakeVllmProcess(FakeVllm):
        def die(self) -> None:
            try:
                raise RuntimeError("EngineCore encountered an issue (a fault of the fake server)")
            except RuntimeError:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    developer = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
    FakeVllmProcess(parse_options(arguments), faults, developer=developer).serve_forever()


if __name__ == "__main__":
    main()
