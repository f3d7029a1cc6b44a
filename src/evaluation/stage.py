"""The stage `evaluate`: every version answers the same test prompts, and the answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import RESUME, write_json
from ..chat_format.encoding import check_of
from ..data.intake import Intake
from ..judges.endpoint import api_key
from ..measures import JUDGE, REWARD_MODELS, empty_evaluation
from ..miniature.gold import Gold
from ..model.checkpoint import context_length, load_tokenizer
from ..model.refusal_classifier import load_refusal_classifier
from ..model.scorer import Scorer
from ..sampling.engines import Samplers
from ..settings import listed
from .answering import AnswerTest, Results
from .comparison import compare_answers
from .diversity import DiversityTest
from .ghost_attention import measure_ghost_attention
from .instructed import InstructedTests, InstructionChecks, check_dialogue_ids
from .prompts import check_prompt_ids, read_evaluation_prompts
from .responder import Models
from .settings import EvaluateSettings
from .training_rows import compare_with_training
from .values import Values
from .version_retention import RetentionTest, compare_retention
from .versions import SFT, Version, check_tokenizers, list_ablations, list_versions


def run(settings: EvaluateSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Measures all versions and Ghost Attention, writes `evaluation.json` and returns its contents.

    Answers of each model in each decoding and each series of dialogues are stored below `out`; a resumed run
    reuses them.

    Raises:
        ConfigError: the environment variable with an API key is not set.
        DataError: broken test prompts, a version whose name can't be a folder or whose tokenizer differs from
            that of `sft`, a model that can't be loaded, an endpoint that rejects requests.
        LlamitaError: an endpoint does not answer.
    """
    gold = Gold.load(inputs["data"]) if settings.gold else None
    if settings.comparison.judge is not None:
        api_key(settings.comparison.judge)  # before hours of sampling
    intake = Intake(settings.max_bad_rows, check_of(load_tokenizer(inputs["sft"])))
    with Samplers(settings, dtype=settings.dtype, working=out / RESUME) as samplers:
        models = Models(inputs["sft"], settings, samplers)
        evaluation = _evaluate(settings, inputs, out, models=models, gold=gold, intake=intake)
    intake.write(out)
    evaluation["rows"] = intake.metrics()
    write_json(out / "evaluation.json", evaluation)
    return evaluation


def _evaluate(
    settings: EvaluateSettings,
    inputs: Mapping[str, Path],
    out: Path,
    *,
    models: Models,
    gold: Gold | None,
    intake: Intake,
) -> dict[str, Any]:
    """Returns the contents of `evaluation.json`, without the counts of rows."""
    versions = list_versions(inputs["sft"], listed(inputs, "versions"))
    ablations = list_ablations(listed(inputs, "ablations"))
    without = [Version(name, inputs[name]) for name in ("sft_without_gatt",) if name in inputs]
    check_tokenizers([*versions[1:], *ablations, *without], inputs["sft"])  # `without` reads ids of `sft`

    folders = {version.name: version.folder for version in versions}
    judges = {name: inputs[name] for name in (*REWARD_MODELS, JUDGE) if name in inputs}
    answering = [*folders.values(), *(ablation.folder for ablation in ablations)]
    context = min(map(context_length, [*answering, *judges.values()]))
    test, counts = _answer_test(
        settings, inputs, models, folders=folders, judges=judges, context=context, gold=gold, intake=intake
    )
    diversity = DiversityTest.read(settings, inputs["data"], models, context=context, intake=intake)
    trained = {name: folder for name, folder in judges.items() if name != JUDGE} | folders
    seen = compare_with_training(test.prompts, trained)
    instructed = _instructed_tests(settings, inputs, gold, intake=intake)
    retention = None
    if instructed is not None and instructed.settings.versions:
        retention = RetentionTest(settings, models, instructed, gold)
    results: dict[str, Results] = {}
    followed: dict[str, Values] = {}
    diversities: dict[str, Any] = {}
    for version in versions:  # all tests of a version, while its model is loaded
        results[version.name] = test.run(version, out)
        if retention is not None and (version.name != SFT or retention.needs_sft):
            followed[version.name] = retention.run(version, out / "version_retention" / version.name)
        if diversity is not None:
            diversities[version.name] = diversity.run(version, out / "diversity" / version.name)
    ablated = {ablation.name: test.run_ablation(ablation, out) for ablation in ablations}

    evaluation = empty_evaluation() | {"prompts": counts} | compare_answers(test, results, ablated, out=out)
    if diversity is not None:
        evaluation["prompts"] |= diversity.counts
        evaluation["diversity"] = diversities
    evaluation["training_rows"] = seen
    if gold is not None:
        evaluation["demonstrations"] = {
            "gold_helpfulness": gold.demonstrations_helpfulness,
            "gold_helpfulness_se": gold.demonstrations_helpfulness_se,
        }
    if instructed is not None:
        measured, series = measure_ghost_attention(
            settings, inputs, out / "retention", models=models, tests=instructed, gold=gold
        )
        evaluation |= measured
        if retention is not None:
            evaluation |= compare_retention({SFT: series["with"]} | followed, instructed.for_versions)
    return evaluation


def _answer_test(
    settings: EvaluateSettings,
    inputs: Mapping[str, Path],
    models: Models,
    *,
    folders: Mapping[str, Path],
    judges: Mapping[str, Path],
    context: int,
    gold: Gold | None,
    intake: Intake,
) -> tuple[AnswerTest, dict[str, Any]]:
    """Returns the test with its prompts and scorers, and the counts of `read_evaluation_prompts`.

    `judges`: folders of the reward models; `context`: see `read_fitting`.
    """
    prompts, counts = read_evaluation_prompts(
        settings, inputs["data"], models.tokenizer, context=context, intake=intake
    )
    if gold is not None:
        check_prompt_ids(prompts, gold)
    scorers = {
        name: Scorer(folder, models.tokenizer, dtype=settings.dtype, offloaded=True)
        for name, folder in judges.items()
    }
    classifier = inputs.get("refusal_classifier")
    is_refusal = None if classifier is None else load_refusal_classifier(classifier)
    return AnswerTest(
        settings, models, prompts, scorers=scorers, gold=gold, is_refusal=is_refusal, folders=folders
    ), counts


def _instructed_tests(
    settings: EvaluateSettings, inputs: Mapping[str, Path], gold: Gold | None, *, intake: Intake
) -> InstructedTests | None:
    """Returns the dialogues with instructions; checks them now, before hours of sampling."""
    if settings.retention is None:
        return None
    tests = InstructedTests(settings.retention, inputs.get("gatt", inputs["data"]), intake)
    for dialogues in (tests.trained, tests.for_versions, tests.unseen or []):
        if gold is None:
            InstructionChecks(dialogues)
        else:
            check_dialogue_ids(dialogues, gold)
    return tests
