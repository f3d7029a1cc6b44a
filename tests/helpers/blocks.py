"""A pipeline with three rounds of fake stages: a judge trained in each round, rejection sampling and PPO."""

from __future__ import annotations

from llamita.runner import pipeline
from llamita.runner.identity import StageRun

from .text_stages import TunerSettings

PIPELINE = """\
name: tiny
roots: {data: null}
stages:
  - {name: base, stage: maker, with: {words: 3}}
  - {name: sft, stage: tuner, inputs: {model: base}}
  - rounds: [v1, v2, v3]
    previous: sft
    stages:
      - {name: judge, stage: judge, inputs: {model: previous}}
      - name: rejection
        stage: tuner
        config: rejection.yaml
        inputs: {model: previous, judge: judge, earlier: all.rejection}
      - {name: ppo, stage: tuner, only: [v2, v3], inputs: {model: rejection, judge: judge}}
  - {name: evaluate, stage: tuner, inputs: {model: sft, earlier: all}}
  - {name: report, stage: gather}
"""
NAMES = [
    *("base", "sft", "v1/judge", "v1/rejection", "v2/judge", "v2/rejection", "v2/ppo"),
    *("v3/judge", "v3/rejection", "v3/ppo", "evaluate", "report"),
]


def stage_runs(*overrides: str) -> dict[str, StageRun]:
    """The stages of the pipeline in the current folder, by their names."""
    planned = pipeline.read_pipeline("configs/pipeline.yaml", overrides)
    return {item.stage_run.name: item.stage_run for item in planned}


def settings(stage_run: StageRun) -> TunerSettings:
    """Those of a stage `tuner`."""
    assert isinstance(stage_run.settings, TunerSettings)
    return stage_run.settings
