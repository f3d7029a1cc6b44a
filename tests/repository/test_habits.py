"""Make targets, hosted CI, hooks, citation and the contributor's page agree with each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import llamita

from ..helpers.repository import REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))
GUIDE = REPOSITORY / "CONTRIBUTING.md"


def read(path: str) -> Any:
    return YAML(typ="safe").load((REPOSITORY / path).read_text(encoding="utf-8"))


def hosted_commands() -> set[str]:
    """All commands of the hosted CI workflow, one for each value of its matrix."""
    commands = set()
    for job in read(".github/workflows/ci.yml")["jobs"].values():
        targets = job.get("strategy", {}).get("matrix", {}).get("target", [""])
        runs = [step["run"] for step in job["steps"] if "run" in step]
        commands |= {run.replace("${{ matrix.target }}", target) for run in runs for target in targets}
    return commands


def test_hosted_ci_calls_what_ci_run_calls() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    needed = set(re.findall(r"^(?:timed )?((?:make|\.venv/bin/python) .+)$", script, re.MULTILINE))
    assert needed >= {"make lint", "make test", "make smoke"}
    assert needed <= hosted_commands()
    assert "# Never run" in (REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8")


def test_every_target_is_phony_and_every_target_mentioned_exists() -> None:
    [phony] = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == TARGETS
    pages = [GUIDE, REPOSITORY / "README.md", *(REPOSITORY / ".github").rglob("*.md")]
    mentioned = {
        target
        for page in pages
        for target in re.findall(r"(?:^|`)make ([\w-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert mentioned >= {"smoke", "lint", "test", "coverage"}
    assert mentioned <= TARGETS, f"no such target: {sorted(mentioned - TARGETS)}"


def test_coverage_has_a_floor() -> None:
    assert "--cov-fail-under=85" in MAKEFILE


def test_hooks_run_the_versions_of_the_environment() -> None:
    [local] = read(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert [hook["id"] for hook in local["hooks"]] == ["ruff-check", "ruff-format", "codespell"]
    assert all(hook["language"] == "system" for hook in local["hooks"])
    assert all(hook["entry"].startswith(".venv/bin/") for hook in local["hooks"])


def test_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert str(citation["version"]) == llamita.__version__
    assert citation["license"] == "Apache-2.0"
    assert any("2307.09288" in str(reference) for reference in citation["references"])


def test_files_that_the_guide_names_exist() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    paths = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(
        r"`((?:src|tests|docs|configs|\.ci)/[\w./-]+)", text
    )
    named = [Path(path) for path in paths if "NAME" not in path]
    assert len(named) > 5
    assert [str(path) for path in named if not (REPOSITORY / path).exists()] == []
