"""Shell completion: it can be installed, and completes commands, recipes, kinds and stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llamita import cli

from ..helpers.repository import REPOSITORY

SMOKE = str(REPOSITORY / "configs" / "smoke" / "pipeline.yaml")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["in"], ["init"]),
        (["init", "sm"], ["smoke", "smollm"]),
        (["schema", "p"], ["pipeline", "prepare", "pretrain", "ppo"]),
        (
            ["validate", "x.yaml", "--stage", "re"],
            ["reward", "refusal_classifier", "rejection", "red_team", "report"],
        ),
        (["run", SMOKE, "--until", "v"], ["v1/rejection", "v1/ppo", "v2/rejection", "v2/ppo"]),
        (["run", SMOKE, "--from", "s"], ["sft_first", "safety_first", "sft", "safety"]),
        (["run", "--dry-run", SMOKE, "--until", "wor"], ["world"]),
        (["run", "nothing.yaml", "--until", "v"], []),
        (["run", "--until", "v"], []),
    ],
)
def test_names_are_completed(words: list[str], completed: list[str], tmp_path: Path) -> None:
    environment = {
        "_LLAMITA_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["llamita", *words]),
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner().invoke(cli.app, [], prog_name="llamita", env=environment)
    assert result.stdout.split() == completed


def test_it_can_be_installed() -> None:
    assert "--install-completion" in CliRunner().invoke(cli.app, ["--help"]).stdout
