"""Settings of the report stage: it has none of its own, only the artifacts to read."""

from __future__ import annotations

from typing import ClassVar

from ..config import StageSettings


class ReportSettings(StageSettings):
    """Inputs are the artifacts of a run, by any names: what they are is read from their manifests."""

    any_inputs: ClassVar[bool] = True
