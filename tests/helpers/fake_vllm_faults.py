"""Faults that tests set in a fake vLLM server."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

VARIABLE = "FAKE_VLLM_FAULTS"

# How an answer of `/v1/completions` is spoilt: without the last token id, without the last choice, with no
# finish_reason, or with a connection that closes in the middle of the body.
Spoilt = Literal["token_ids", "choices", "finish_reason", "connection"]


@dataclass
class Faults:
    """What goes wrong; the default is nothing. Requests are those of `/v1/completions`.

    Attributes:
        slow: seconds that each request takes longer.
        hang_after: number of requests that are answered; the server never answers later ones.
        fail_after: number of requests that are answered; later ones get status 500.
        die_after: number of requests that are answered; at the next, the process ends with a traceback. A
            server in a thread closes its port and all connections instead.
        die_at_start: the process ends with a traceback before it opens its port.
        never_healthy: the process runs but never opens its port, as vLLM's while it loads.
        keep_weights: `reload_weights` reports success and keeps the old weights.
        spoil: part of an answer that is missing.
        spoil_after: number of requests that are answered correctly before.
        marker: a file; the first server that starts creates it, and only that one has the faults. Empty:
            every server has them.
    """

    slow: float = 0.0
    hang_after: int | None = None
    fail_after: int | None = None
    die_after: int | None = None
    die_at_start: bool = False
    never_healthy: bool = False
    keep_weights: bool = False
    spoil: Spoilt | None = None
    spoil_after: int = 0
    marker: str = ""

    def to_json(self) -> str:
        """The value of the environment variable `VARIABLE` for a server in another process."""
        return json.dumps(dataclasses.asdict(self))

    def of_this_life(self) -> Faults:
        """These faults, or none if an earlier server has created the marker file."""
        if not self.marker:
            return self
        try:
            Path(self.marker).touch(exist_ok=False)
        except FileExistsError:
            return Faults()
        return self


def read_faults(environment: Mapping[str, str] = os.environ) -> Faults:
    """The faults that the environment variable `VARIABLE` holds as JSON."""
    return Faults(**json.loads(environment.get(VARIABLE, "{}")))
