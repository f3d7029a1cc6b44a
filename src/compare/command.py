"""Options of `llamita compare` (imports no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..comparison.settings import TIE_MARGIN, PairJudge
from ..config import load_settings
from ..errors import ConfigError
from ..sampling.settings import SamplingSettings
from ..settings import Precision, StageSettings

MODEL = "Folder of a model or of a stage that trained one, its id on the Hub, or a JSONL file of answers."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=MODEL)],
    b: Annotated[str, typer.Argument(metavar="B", help="The same for the model to compare it with.")],
    *,
    prompts: Annotated[Path, typer.Option("--prompts", metavar="FILE", help="Prompts.")],
    harmful: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More prompts, with harmful requests.")
    ] = None,
    format: Annotated[str, typer.Option(help="Format of the prompts, see docs/data.md.")] = "prompts",
    helpfulness: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Helpfulness reward model, for ordinary prompts.")
    ] = None,
    safety: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Safety reward model, for harmful prompts.")
    ] = None,
    gold: Annotated[
        Path | None, typer.Option(metavar="WORLD", help="Folder of the miniature world the prompts are of.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="URL", help="OpenAI-compatible endpoint, such as http://localhost:8000/v1."),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the judge model at the endpoint.")
    ] = None,
    judge_key_variable: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable that holds the API key.")
    ] = None,
    judge_max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum length of the judge's replies.")
    ] = None,
    judge_timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds without a reply after which a request is repeated; default: 60."),
    ] = None,
    tie_margin: Annotated[
        float,
        typer.Option(min=0, max=1, help="Difference of two scores (0 to 1) up to which answers tie."),
    ] = TIE_MARGIN,
    samples: Annotated[int, typer.Option(min=1, help="Number of answers per prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Total probability to sample from.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the sampled answers.")] = 0,
    dtype: Annotated[Precision, typer.Option(help="Precision of the weights.")] = "float32",
    sampler: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML with a section `sampler`, as stages have it: what samples."),
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the results; resumes if it has a part of them.")
    ] = Path("comparison"),
) -> None:
    """Compare the answers of two models: how often A wins, ties with B, or loses.

    Each rater compares the answers by itself: reward models, the ground truth of a miniature world, and a
    judge model, which is asked in both orders. Writes comparison.json, comparison.png and answers.jsonl. The
    API key is read from the environment only.
    """
    if judge is None and (judge_model or judge_key_variable or judge_max_tokens or judge_timeout):
        raise ConfigError("--judge-model and the options of the judge need --judge URL; add it")
    if not (helpfulness or safety or gold or judge):
        raise ConfigError("nothing compares the answers; add --helpfulness, --safety, --gold or --judge")
    asked = None
    if judge is not None:
        asked = _judge(
            judge, judge_model, judge_key_variable, max_tokens=judge_max_tokens, timeout=judge_timeout
        )
    engine = SamplingSettings() if sampler is None else _sampler(sampler)
    from .answers import Sampling
    from .comparing import Request, run

    run(
        Request(
            a,
            b,
            prompts=prompts,
            harmful=harmful,
            format=format,
            reward_models={
                name: model for name, model in (("helpfulness", helpfulness), ("safety", safety)) if model
            },
            gold=gold,
            judge=asked,
            tie_margin=tie_margin,
            sampling=Sampling(
                engine=engine.sampler.engine,
                temperature=temperature,
                top_p=top_p,
                max_new_tokens=max_new_tokens,
                samples=samples,
                seed=seed,
                dtype=dtype,
            ),
            sampler=engine,
        ),
        output,
    )


def _sampler(path: Path) -> SamplingSettings:
    settings = load_settings(path, SamplingSettings)
    allowed = [name for name in SamplingSettings.model_fields if name not in StageSettings.model_fields]
    for name in sorted(settings.model_fields_set.difference(allowed)):
        raise ConfigError(f"{path}: {name}: has no effect here; expected only {' and '.join(allowed)}")
    return settings


def _judge(
    url: str, model: str | None, key_variable: str | None, *, max_tokens: int | None, timeout: float | None
) -> PairJudge:
    from pydantic import ValidationError

    if model is None:
        raise ConfigError("--judge needs the name of a model at the endpoint; add --judge-model NAME")
    changed: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    try:
        return PairJudge(
            base_url=url, model=model, api_key_env=key_variable, max_tokens=max_tokens, **changed
        )
    except ValidationError as error:
        raise ConfigError(f"--judge: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
