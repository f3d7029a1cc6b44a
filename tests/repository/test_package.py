"""The package as others get it: every folder is in it, every file, and pins that agree with the ranges."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import llamita

from ..helpers.repository import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def test_package_list_equals_the_tree() -> None:
    tree = {
        ".".join(("llamita", *path.parent.relative_to(REPOSITORY / "src").parts))
        for path in (REPOSITORY / "src").rglob("*.py")
        if not any(part.endswith(".egg-info") for part in path.parts)
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == tree | {"llamita.recipes"}  # configs/, only data
    for package in tree:
        assert (REPOSITORY / "src" / Path(*package.split(".")[1:]) / "__init__.py").is_file(), package


def test_files_other_than_python_are_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    for path in (REPOSITORY / "src").rglob("*"):
        if path.is_dir() or path.suffix in (".py", ".pyc") or "egg-info" in str(path):
            continue
        package = ".".join(("llamita", *path.parent.relative_to(REPOSITORY / "src").parts))
        assert any(fnmatch(path.name, pattern) for pattern in patterns.get(package, [])), path


def test_every_layer_is_named_in_the_import_contract() -> None:
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name for layer in layers for name in re.findall(r"\w+", layer)}
    found = {
        path.stem
        for path in (REPOSITORY / "src").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert named == found - {"__init__"}


def test_constraints_pin_what_the_ranges_allow() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    assert not any("+" in version for version in pins.values())  # no local version: any index serves
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *(one for extra in extras.values() for one in extra)]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name.lower().replace(".", "-")]), text


def test_version_and_licence() -> None:
    assert metadata.version("llamita") == llamita.__version__
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_typings_link_leads_to_the_sources() -> None:
    assert (REPOSITORY / "typings" / "llamita").resolve() == REPOSITORY / "src"


def test_ci_runs_every_check() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    for command in (
        "make lint",
        "make test",
        "make test-oldest",
        "make test-long",
        "make smoke",
        ".ci/check_smoke.py",
    ):
        assert f"\ntimed {command}\n" in script or command in script.splitlines()[-1], command
    assert (REPOSITORY / ".ci" / "run").stat().st_mode & 0o100
    dry = subprocess.run(["make", "-n", "smoke"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ".venv/bin/llamita run configs/smoke/pipeline.yaml" in dry.stdout
