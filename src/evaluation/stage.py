"""The stage `evaluate`: every version answers the same test prompts, and the answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import write_json
from ..chat_format.encoding import check_of
from ..data.intake import Intake
from ..measures import empty_evaluation
from ..miniature.gold import Gold
from ..model.checkpoint import load_tokenizer
from .comparison import compare_versions
from .ghost_attention import measure_ghost_attention
from .settings import EvaluateSettings


def run(settings: EvaluateSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Measures all versions and Ghost Attention, writes `evaluation.json` and returns its contents.

    Answers of each version and each series of dialogues are stored below `out`; a resumed run reuses them.

    Raises:
        DataError: broken test prompts, a version whose name can't be a folder, a model that can't be loaded.
    """
    gold = Gold.load(inputs["data"]) if settings.gold else None
    intake = Intake(settings.max_bad_rows, check_of(load_tokenizer(inputs["sft"])))
    evaluation = empty_evaluation()
    if gold is not None:
        evaluation["demonstrations"] = {
            "gold_helpfulness": gold.demonstrations_helpfulness,
            "gold_helpfulness_se": gold.demonstrations_helpfulness_se,
        }
    evaluation |= compare_versions(settings, inputs, out / "versions", gold=gold, intake=intake)
    evaluation |= measure_ghost_attention(settings, inputs, out / "retention", gold=gold, intake=intake)
    intake.write(out)
    evaluation["rows"] = intake.metrics()
    write_json(out / "evaluation.json", evaluation)
    return evaluation
