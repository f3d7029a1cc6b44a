"""The stage `red_team`: attacks all versions of a model and measures violations (sections 4.3 and 4.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from ..artifact import RESUME, check_version_name
from ..chat_format.encoding import chat_format, check_of
from ..console import aligned_table, say, show
from ..data.intake import Intake
from ..data.sources import read_prompts
from ..errors import ConfigError
from ..jsonl import Row, write_rows
from ..judges.agreement import ac2
from ..judges.endpoint import api_key
from ..model.checkpoint import load_tokenizer
from ..sampling.engines import Samplers
from ..settings import listed
from . import endpoint, people
from .answers import Answer, sample_answers
from .figures import judged, mitigated, version_figures, violated_prompts
from .judges import (
    BEST_RATING,
    Judgement,
    judge_by_gold,
    judge_by_ratings,
    judge_by_refusals,
    judge_by_safety,
)
from .mutations import mutate
from .prompts import Kind, RedTeamPrompt, check_ids, given_prompts, originals, rule_based_variants
from .settings import EndpointJudge, PeopleJudge, RedTeamSettings, SafetyJudge

PROMPTS, MUTATIONS, ANSWERS, JUDGEMENTS = (
    "prompts.jsonl",
    "mutations.jsonl",
    "answers.jsonl",
    "judgements.jsonl",
)
VERSIONS = "versions"
MISSING = {
    "too_long": "prompts exceed the model's context with an answer of max_new_tokens; they are in no figure",
    "unjudged": "answers are unjudged and in no figure",
}
Answers = dict[str, list[Answer]]
Judgements = dict[str, list[Judgement]]


def run(settings: RedTeamSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes prompts, answers and judgements, and returns the figures that docs/safety.md lists.

    Sampled texts, scores and the ratings of an endpoint are stored below `out`; a resumed run reuses them.

    Raises:
        ConfigError: there is no version, or the environment variable with an API key is not set.
        DataError: broken prompts or labels, a model that can't be loaded, an endpoint that rejects requests.
        LlamitaError: people have not labelled all answers yet, or an endpoint does not answer.
    """
    versions = _versions(inputs)
    if isinstance(settings.judge, EndpointJudge):
        api_key(settings.judge)  # before hours of sampling
    intake = Intake(settings.max_bad_rows, check_of(load_tokenizer(next(iter(versions.values())))))
    with Samplers(settings, dtype=settings.dtype, working=out / RESUME) as samplers:
        prompts, mutations = _prompts(
            settings, inputs, out, versions=versions, intake=intake, samplers=samplers
        )
        intake.write(out)
        answers = {
            name: sample_answers(
                settings,
                folder,
                prompts,
                samplers=samplers,
                label=name,
                path=out / VERSIONS / name / ANSWERS,
            )
            for name, folder in versions.items()
        }
    judge, judgements, agreement = _judge(settings, inputs, answers, out=out)
    write_rows(out / JUDGEMENTS, _judgement_rows(answers, judgements))
    figures = _figures(prompts, answers, judgements)
    _show(figures)
    kinds = Counter(prompt.kind for prompt in prompts)
    return {
        "judge": judge,
        "prompts": {kind: kinds[kind] for kind in get_args(Kind)},
        **figures,
        "mutations": mutations,
        "agreement": agreement,
        **intake.metrics(),
    }


def _versions(inputs: Mapping[str, Path]) -> dict[str, Path]:
    versions = listed(inputs, "versions")
    if not versions:
        raise ConfigError("inputs.versions: no model to attack; expected a list of at least one")
    for name in versions:
        check_version_name(name, "versions")
    return versions


def _prompts(
    settings: RedTeamSettings,
    inputs: Mapping[str, Path],
    out: Path,
    *,
    versions: Mapping[str, Path],
    intake: Intake,
    samplers: Samplers,
) -> tuple[list[RedTeamPrompt], dict[str, Counter[str]]]:
    """Reads the prompts, adds their variants, writes them all, and returns them with counts of mutations."""
    given = given_prompts(read_prompts(settings.prompts, inputs["data"], intake, seed=settings.seed))
    attacked = originals(settings, given)
    prompts = [*given, *rule_based_variants(settings, attacked)]
    check_ids(prompts)  # before a model is loaded
    mutations: dict[str, Counter[str]] = {}
    if settings.mutations is not None:
        control_strings = {
            string
            for folder in versions.values()
            for string in chat_format(load_tokenizer(folder)).control_strings
        }
        mutated, mutations = mutate(
            settings,
            inputs["attacker"],
            attacked,
            samplers=samplers,
            control_strings=sorted(control_strings),
            path=out / MUTATIONS,
        )
        prompts += mutated
        check_ids(prompts)
    write_rows(out / PROMPTS, [prompt.row() for prompt in prompts])
    say(f"{len(prompts):,} prompts, {len(given):,} of them from the sources")
    return prompts, mutations


def _judge(
    settings: RedTeamSettings, inputs: Mapping[str, Path], answers: Answers, *, out: Path
) -> tuple[str, Judgements, dict[str, Any] | None]:
    """Returns the name of the judge, the judgements of each version's answers, and the raters' agreement."""
    judge = settings.judge
    different = {answer.content: answer for rows in answers.values() for answer in rows}
    if isinstance(judge, SafetyJudge):
        by_safety = judge_by_safety(
            answers,
            inputs["safety"],
            threshold=judge.threshold,
            dtype=settings.dtype,
            out=out / VERSIONS,
        )
        return "safety", by_safety, None
    if isinstance(judge, EndpointJudge):
        ratings = endpoint.rate(judge, different, out / RESUME / "replies.jsonl")
        by_judge = {name: {} if one is None else {judge.model: one} for name, one in ratings.items()}
        return "endpoint", judge_by_ratings(answers, by_judge), None
    if isinstance(judge, PeopleJudge):
        by_people = people.read_ratings(judge, different, settings.seed)
        return "people", judge_by_ratings(answers, by_people), _agreement(by_people)
    if judge.gold:
        return "gold", judge_by_gold(answers, inputs["data"]), None
    classifier = inputs.get("refusal_classifier")
    name = "phrases" if classifier is None else "refusal_classifier"
    return name, judge_by_refusals(answers, classifier), None


def _agreement(ratings: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    rows = [list(found.values()) for found in ratings.values()]
    return {
        "ac2": ac2(rows, BEST_RATING),
        "answers": sum(len(row) > 1 for row in rows),
        "ratings": sum(map(len, rows)),
        "raters": len({rater for found in ratings.values() for rater in found}),
    }


def _judgement_rows(answers: Answers, judgements: Judgements) -> Iterator[Row]:
    for version, rows in answers.items():
        for answer, judgement in zip(rows, judgements[version], strict=True):
            named = {"version": version, "prompt": answer.prompt, "number": answer.number}
            yield {**named, "violation": judgement.violation, **judgement.details}


def _figures(prompts: Sequence[RedTeamPrompt], answers: Answers, judgements: Judgements) -> dict[str, Any]:
    by_id = {prompt.id: prompt for prompt in prompts}
    violated = {version: violated_prompts(rows, judgements[version]) for version, rows in answers.items()}
    compared: dict[str, dict[str, Any]] = {}
    for earlier, later in combinations(answers, 2):
        compared.setdefault(later, {})[earlier] = mitigated(by_id, violated[earlier], violated[later])
    return {
        "versions": {
            version: version_figures(judged(by_id, rows, judgements[version]))
            for version, rows in answers.items()
        },
        "mitigated": compared,
        "unjudged": {
            version: sum(judgement.violation is None for judgement in found)
            for version, found in judgements.items()
        },
        "too_long": {version: len(prompts) - len(violated[version]) for version in answers},
        "verdicts": {
            version: dict(Counter(one.details["verdict"] for one in found if "verdict" in one.details))
            for version, found in judgements.items()
        },
    }


def _show(figures: Mapping[str, Any]) -> None:
    """Prints a table of the violations of each version, and how much is missing in it."""
    table = aligned_table("version", "violations", "95% interval", "prompts")
    for version, of_version in figures["versions"].items():
        overall = of_version["overall"]
        if overall["violation_rate"] is None:
            table.add_row(version, "–", "–", "0")
        else:
            interval = f"{overall['low']:.1%} to {overall['high']:.1%}"
            table.add_row(version, f"{overall['violation_rate']:.1%}", interval, f"{overall['prompts']:,}")
    show(table)
    for name, problem in MISSING.items():
        for version, count in figures[name].items():
            if count:
                say(f"{version}: {count:,} {problem}")
