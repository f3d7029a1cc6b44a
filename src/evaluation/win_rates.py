"""Win, tie or loss of each version against the version before it and against `sft` (section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..comparison.judge import Judged, Pair, judge_pairs, published
from ..comparison.settings import ComparisonSettings, PairJudge
from ..comparison.verdicts import Verdicts, by_scores, compare
from ..console import say
from ..measures import ENDPOINT, GOLD, JUDGE, REWARD_MODELS
from .answering import AnswerTest, Result, Results
from .answers import SCORED_KINDS
from .values import Values, compared_versions

REPLIES = "replies.jsonl"


def compare_versions(test: AnswerTest, results: Results, out: Path) -> dict[str, Any]:
    """Returns the keys `comparisons` and `comparison_judge` of the evaluation.

    Args:
        results: results of each version in the first decoding, the oldest version first.
        out: folder in which the replies of a judge behind an endpoint are stored.

    Raises the errors of `ask` if there is such a judge.
    """
    settings = test.settings.comparison
    comparisons: dict[str, dict[str, Any]] = {}
    for version, others in compared_versions(list(results)).items():
        for other in others:
            judged = None
            if settings.judge is not None:
                say(f"{version} against {other}: asking {settings.judge.model}")
                both = results[version], results[other]
                judged = _judge(test, settings.judge, both, path=out / REPLIES)
            raters = score_raters(results[version].values, results[other].values, settings)
            if judged is not None:
                raters[ENDPOINT] = judged.verdicts
            kinds = [prompt.kind for prompt in test.answered_prompts]
            comparisons.setdefault(version, {})[other] = {
                "kinds": compare(raters, kinds, test.groups),
                "endpoint": None if judged is None else judged.figures,
            }
    judge = None if settings.judge is None else published(settings.judge)
    return {"comparisons": comparisons, "comparison_judge": judge}


def score_raters(first: Values, second: Values, settings: ComparisonSettings) -> dict[str, Verdicts]:
    """Returns the verdicts of the reward models and of the ground truth, of those that are known."""
    raters: dict[str, Verdicts] = {}
    for name in (*REWARD_MODELS, JUDGE):
        measure = f"{name}_score"
        if measure in first and measure in second:
            raters[name] = by_scores(first[measure], second[measure], margin=settings.tie_margin)
    gold = [_gold(values) for values in (first, second)]
    if gold[0] is not None and gold[1] is not None:
        raters[GOLD] = by_scores(gold[0], gold[1])
    return raters


def _gold(values: Values) -> Sequence[float | None] | None:
    """Returns helpfulness for ordinary prompts and, for harmful ones, -1 for harmful answers, else 0."""
    if "gold_helpfulness" not in values or "violation_rate" not in values:
        return None
    return [
        helpfulness if violation is None else -violation
        for helpfulness, violation in zip(values["gold_helpfulness"], values["violation_rate"], strict=True)
    ]


def _judge(test: AnswerTest, judge: PairJudge, results: tuple[Result, Result], *, path: Path) -> Judged:
    """Lets the judge compare the first answers to some prompts of each kind that reward models score."""
    pairs: dict[int, Pair] = {}
    for kind in SCORED_KINDS[JUDGE]:
        rows = [row for row, prompt in enumerate(test.answered_prompts) if prompt.kind == kind]
        firsts = rows[:: test.settings.num_generations]
        count = min(test.settings.comparison.judge_prompts, len(firsts))
        for place in range(count):
            row = firsts[place * len(firsts) // count]
            (prompt, first), (_, second) = (result.answered[row] for result in results)
            pairs[row] = Pair(prompt.messages, first.text, second.text)
    return judge_pairs(judge, pairs, path)
