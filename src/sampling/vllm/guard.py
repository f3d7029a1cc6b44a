"""Runs a command until it ends or the standard input is closed: no server outlives its stage.

    python guard.py COMMAND [ARGUMENT …]

The stage holds the other end of the input. The system closes it however the stage ends, also by SIGKILL.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

PATIENCE = 10.0  # seconds from SIGTERM to SIGKILL


def main() -> int:
    # Before the server starts: else it would outlive a guard that is interrupted in between. Not SIG_IGN: the
    # server would inherit it.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(name, lambda *_: None)  # the stage decides when its servers end
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def stop() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        _signal(server, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE)
        _signal(server, signal.SIGKILL)  # its workers, too

    stopping = threading.Thread(target=stop, daemon=True)
    stopping.start()
    code = server.wait()
    _signal(server, signal.SIGKILL)
    return code


def _signal(server: "subprocess.Popen[bytes]", number: int) -> None:
    """Signals the server and all processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, number)


if __name__ == "__main__":
    sys.exit(main())
