"""Samples the answers of two models, lets all raters compare them and writes the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..comparison.judge import Judged, Pair, judge_pairs, published
from ..comparison.settings import PairJudge
from ..comparison.verdicts import NAMES, Verdicts, by_scores, compare
from ..data.held_out import opening
from ..data.rows import Prompt
from ..distributed.cached import cached_rows
from ..errors import ConfigError, DataError
from ..hashes import digest, file_hash, input_hash
from ..jsonl import Row
from ..judges.endpoint import api_key
from ..judges.scores import TextScores
from ..measures import ENDPOINT, GOLD
from ..miniature.gold import Gold
from ..sampling.engines import Samplers
from ..sampling.settings import SamplingSettings
from ..working import locked
from .answers import PARTS, Answerer, Sampling, answerer, find, read_compared_prompts
from .output import show, write

LABELS = ("A", "B")
KINDS = {"helpfulness": "ordinary", "safety": "adversarial"}  # reward model -> prompts
Column = list[float | None]


@dataclass(frozen=True)
class Request:
    """What `llamita compare` is to do.

    Attributes:
        a, b: names of the models or files of answers.
        prompts, harmful, format: files of prompts, `harmful` those of adversarial ones, and their format.
        reward_models: names of reward models by kind.
        gold: folder of the miniature world that the prompts are of.
        sampler: the settings of the engine that samples.
    """

    a: str
    b: str
    prompts: Path
    harmful: Path | None
    format: str
    reward_models: Mapping[str, str]
    gold: Path | None
    judge: PairJudge | None
    tie_margin: float
    sampling: Sampling
    sampler: SamplingSettings


@dataclass(frozen=True)
class _Inputs:
    """What is compared, and by what; `hashes` of the reward models, `counts` of the prompts."""

    gold: Gold | None
    scorers: Mapping[str, TextScores]
    hashes: Mapping[str, str]
    answerers: Sequence[Answerer]
    prompts: list[Prompt]
    counts: dict[str, Any]


@dataclass(frozen=True)
class _Answers:
    """Prompt of each pair, and the texts of both models; `identity` is a hash of all of it."""

    prompts: list[Prompt]
    first: list[str]
    second: list[str]
    identity: str


def run(request: Request, out: Path) -> dict[str, Any]:
    """Compares, writes the results to `out`, prints the table and returns the content of `comparison.json`.

    Sampled answers, scores and replies are stored below `out/parts`; the same command reuses them.

    Raises:
        ConfigError: a model does not exist, or the environment variable with the API key is not set.
        DataError: broken prompts or answers, a broken model, an endpoint that rejects requests.
        LlamitaError: the endpoint or a server does not answer, or another process uses the folder `out`.
    """
    inputs = _checked(request)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        return _compare(request, inputs, out)


def _checked(request: Request) -> _Inputs:
    """Returns all inputs; raises what `run` raises for them, before hours of sampling."""
    if request.judge is not None:
        api_key(request.judge)
    gold = None if request.gold is None else _load_gold(request.gold)
    folders = {name: find(model) for name, model in request.reward_models.items()}
    scorers = {name: TextScores(folder, request.sampling.dtype) for name, folder in folders.items()}
    answerers = [answerer(name) for name in (request.a, request.b)]
    prompts, counts = read_compared_prompts(
        request.prompts, request.harmful, answerers, format=request.format, sampling=request.sampling
    )
    _check_kinds(prompts, request.reward_models)
    for name, scorer in scorers.items():
        _check_format(name, scorer, prompts)
    if gold is not None:
        _check_ids(prompts, gold, request)
    hashes = {name: input_hash(folder) for name, folder in folders.items()}
    return _Inputs(gold, scorers, hashes, answerers=answerers, prompts=prompts, counts=counts)


def _compare(request: Request, inputs: _Inputs, out: Path) -> dict[str, Any]:
    answers = _answers(inputs, request, out)
    scores = {
        name: _scores(name, scorer, [inputs.hashes[name], request.sampling.dtype], answers=answers, out=out)
        for name, scorer in inputs.scorers.items()
    }
    raters: dict[str, Verdicts] = {
        name: {**_undecided(name, answers.prompts), **by_scores(*both, margin=request.tie_margin)}
        for name, both in scores.items()
    }
    if inputs.gold is not None:
        raters[GOLD] = by_scores(*(_gold_values(inputs.gold, answers, place) for place in (0, 1)))
    judged = None if request.judge is None else _judged(request.judge, answers, out)
    if judged is not None:
        raters[ENDPOINT] = judged.verdicts
    kinds = ["harmful" if prompt.is_safety else "ordinary" for prompt in answers.prompts]
    groups = [opening(prompt) for prompt in answers.prompts]
    comparison = _described(request, inputs) | {
        "kinds": compare(raters, kinds, groups),
        "endpoint": None if judged is None else judged.figures,
    }
    write(comparison, _rows(answers, scores, raters), out)
    show(comparison, out)
    return comparison


def _described(request: Request, inputs: _Inputs) -> dict[str, Any]:
    """Returns what was compared, and how."""
    identities = [one.identity(inputs.prompts, request.sampling) for one in inputs.answerers]
    return {
        "a": {"name": request.a, "answers": identities[0]},
        "b": {"name": request.b, "answers": identities[1]},
        "prompts": {
            "file": str(request.prompts),
            "hash": file_hash(request.prompts),
            "harmful": None if request.harmful is None else str(request.harmful),
            **inputs.counts,
        },
        "sampling": asdict(request.sampling),
        "tie_margin": request.tie_margin,
        "reward_models": {
            name: {"name": model, "hash": inputs.hashes[name]}
            for name, model in request.reward_models.items()
        },
        "judge": None if request.judge is None else published(request.judge),
    }


def _answers(inputs: _Inputs, request: Request, out: Path) -> _Answers:
    prompts, sampling = inputs.prompts, request.sampling
    with Samplers(request.sampler, dtype=sampling.dtype, working=out / PARTS) as samplers:
        first, second = (
            one.answers(prompts, sampling, samplers, out=out, label=label)
            for one, label in zip(inputs.answerers, LABELS, strict=True)
        )
    repeated = [prompt for prompt in prompts for _ in range(sampling.samples)]
    identity = digest([one.identity(prompts, sampling) for one in inputs.answerers])
    return _Answers(repeated, first, second, identity)


def _scored(name: str, prompts: Sequence[Prompt]) -> list[bool]:
    """Whether a reward model scores the answers to each prompt.

    The safety model scores answers to adversarial prompts, the helpfulness model those to the others.
    """
    return [prompt.is_safety == (name == "safety") for prompt in prompts]


def _undecided(name: str, prompts: Sequence[Prompt]) -> dict[int, int | None]:
    """The pairs of a reward model, for those in which an answer exceeds its context."""
    return {index: None for index, is_scored in enumerate(_scored(name, prompts)) if is_scored}


def _scores(
    name: str, scorer: TextScores, identity: Sequence[str], *, answers: _Answers, out: Path
) -> tuple[Column, Column]:
    """Returns a reward model's scores of both models' answers, stored ones if there are any.

    `identity`: hash of the reward model, and the precision of its weights.
    """
    scored = _scored(name, answers.prompts)

    def rows(texts: Sequence[str], label: str) -> list[Row]:
        chosen = [index for index, is_scored in enumerate(scored) if is_scored]
        messages = [answers.prompts[index].messages for index in chosen]
        scores = scorer(messages, [texts[index] for index in chosen], f"{label}: {name} scores")
        by_index = dict(zip(chosen, scores, strict=True))
        return [{"score": by_index.get(index)} for index in range(len(scored))]

    found = []
    for texts, label in zip((answers.first, answers.second), LABELS, strict=True):
        part = digest([answers.identity, scored, name, identity, label])[:16]
        stored = cached_rows(out / PARTS / f"scores-{part}.jsonl", partial(rows, texts, label))
        found.append([row["score"] for row in stored])
    return found[0], found[1]


def _judged(judge: PairJudge, answers: _Answers, out: Path) -> Judged:
    pairs = {
        index: Pair(prompt.messages, first, second)
        for index, (prompt, first, second) in enumerate(
            zip(answers.prompts, answers.first, answers.second, strict=True)
        )
    }
    path = out / PARTS / f"replies-{digest(published(judge))[:16]}.jsonl"
    return judge_pairs(judge, pairs, path)


def _check_kinds(prompts: Sequence[Prompt], reward_models: Mapping[str, str]) -> None:
    """Raises ConfigError for a reward model without prompts of its kind."""
    has = {"safety": any(prompt.is_safety for prompt in prompts)}
    has["helpfulness"] = not all(prompt.is_safety for prompt in prompts)
    for name in reward_models:
        if not has[name]:
            raise ConfigError(
                f"--{name}: this reward model compares answers to {KINDS[name]} prompts, and there are none; "
                "give adversarial prompts by --harmful or with `is_safety: true` in their rows"
            )


def _check_format(name: str, scorer: TextScores, prompts: Sequence[Prompt]) -> None:
    """Raises DataError for a prompt that a reward model's chat format can't write."""
    for prompt, is_scored in zip(prompts, _scored(name, prompts), strict=True):
        try:
            if is_scored:
                scorer.check(prompt.messages)
        except DataError as error:
            last = prompt.messages[-1]["content"]
            raise DataError(
                f"--{name}: the reward model can't score answers to {last!r:.80}: {error}"
            ) from None


def _load_gold(world: Path) -> Gold:
    if not (world / "truth.json").is_file():
        raise DataError(f"{world}: no truth.json; expected the output of the stage world")
    return Gold.load(world)


def _check_ids(prompts: Sequence[Prompt], gold: Gold, request: Request) -> None:
    for prompt in prompts:
        if not prompt.is_safety and not gold.knows(prompt.id):
            raise DataError(
                f"{request.prompts}: the ground truth of {request.gold} has no prompt with the id "
                f"{prompt.id!r}; expected prompts of that world, such as its test/ordinary.jsonl"
            )


def _gold_values(gold: Gold, answers: _Answers, place: int) -> list[float]:
    """Returns gold helpfulness, and for harmful prompts 0 for an answer that is not harmful, else -1."""
    texts = (answers.first, answers.second)[place]
    return [
        -float(gold.safety(text) == "harmful") if prompt.is_safety else gold.helpfulness(str(prompt.id), text)
        for prompt, text in zip(answers.prompts, texts, strict=True)
    ]


def _rows(
    answers: _Answers, scores: Mapping[str, tuple[Column, Column]], raters: Mapping[str, Verdicts]
) -> list[Row]:
    """Returns both answers to each prompt, with scores and the verdicts on A (null: undecided)."""
    return [
        {
            **prompt.row(),
            "a": answers.first[index],
            "b": answers.second[index],
            "scores": {
                name: [one[index] for one in both] for name, both in scores.items() if index in raters[name]
            },
            "verdicts": {
                name: _named(verdicts[index]) for name, verdicts in raters.items() if index in verdicts
            },
        }
        for index, prompt in enumerate(answers.prompts)
    ]


def _named(verdict: int | None) -> str | None:
    return None if verdict is None else NAMES[verdict]
