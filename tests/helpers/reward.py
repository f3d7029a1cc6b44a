"""Settings of reward models."""

from __future__ import annotations

import json
from typing import Any

from llamita.reward.settings import RewardSettings


def settings(base: dict[str, Any], **changes: Any) -> RewardSettings:
    """Returns HELPFULNESS or SAFETY of `material` with changes."""
    return RewardSettings.model_validate_json(json.dumps(base | changes))
