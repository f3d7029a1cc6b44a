"""`llamita init`: copies of the shipped recipes work where they are put, also from an installed wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llamita import cli
from llamita.commands import recipes
from llamita.runner import pipeline
from llamita.yaml_file import read_yaml

from ..helpers.repository import REPOSITORY

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def init(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["init", *map(str, arguments)])


def test_recipes_are_the_folders_with_a_pipeline() -> None:
    assert recipes.recipe_names() == ["miniature", "real", "smoke", "smollm"]
    result = init()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert lines[3].startswith("  smoke      Smoke test: a small model ")
    assert not any("yaml-language-server" in line or line.endswith(".") for line in lines)


def test_a_wrong_name_lists_the_recipes(tmp_path: Path) -> None:
    result = init("smoek", tmp_path / "new")
    assert result.exit_code == 2
    assert "there is no recipe 'smoek'; did you mean 'smoke'?" in result.stderr
    assert f"\n  smollm     {recipes.description('smollm')}\n" in result.stderr
    assert not (tmp_path / "new").exists()
    assert "type `llamita init smoke FOLDER`" in init("smoke").stderr


@pytest.mark.parametrize("recipe", recipes.recipe_names())
def test_a_copy_has_everything_and_is_valid(recipe: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "copy"
    result = init(recipe, folder)
    assert result.exit_code == 0, result.stderr
    written = {path for path in folder.rglob("*") if path.is_file()}
    for source in (REPOSITORY / "configs" / recipe).iterdir():
        copy = folder / source.name
        assert copy in written
        expected = tmp_path / "expected.yaml"
        expected.write_text(
            source.read_text().replace("../refusals", "refusals").replace("../questions", "questions")
        )  # copied as well
        assert read_yaml(copy).data == read_yaml(expected).data
        assert len(copy.read_text().splitlines()) == len(source.read_text().splitlines())  # comments too
        schema = copy.read_text().splitlines()[0].rpartition("=")[2]
        assert folder / schema in written
    assert all(path.relative_to(folder).as_posix() in result.stdout for path in written)
    assert f"  llamita validate {folder}/pipeline.yaml\n  llamita run {folder}/pipeline.yaml" in result.stdout
    assert f"configs/{recipe}/" not in (folder / "pipeline.yaml").read_text()
    assert pipeline.read_pipeline(folder / "pipeline.yaml", folders_needed=False)


def test_a_folder_that_a_recipe_refers_to_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = tmp_path / "configs"
    for name, text in {
        "mine/pipeline.yaml": "roots: {answers: ../answers, data: ../../data}\n",
        "answers/rows.jsonl": "{}\n",
        "answers/README.md": "# Rows\n",
        "other/pipeline.yaml": "{}\n",
    }.items():
        (configs / name).parent.mkdir(parents=True, exist_ok=True)
        (configs / name).write_text(text)
    monkeypatch.setattr(recipes, "configs_folder", lambda: configs)
    written = recipes.copy_recipe("mine", tmp_path / "copy")
    names = {path.relative_to(tmp_path / "copy").as_posix() for path in written}
    assert names == {"pipeline.yaml", "answers/rows.jsonl", "answers/README.md"}
    copied = read_yaml(tmp_path / "copy" / "pipeline.yaml").data
    assert copied == {"roots": {"answers": "answers", "data": "../../data"}}


def test_the_next_command_names_the_folders_that_the_pipeline_needs(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "copy"
    assert "pipeline.yaml roots.data=FOLDER roots.model=FOLDER_OR_HUB_ID\n" in init("smollm", folder).stdout
    (tmp_path / "a" / "models" / "SmolLM2-135M-Instruct").mkdir(parents=True)
    assert recipes.next_commands(folder)[1].endswith("pipeline.yaml roots.data=FOLDER")


def test_only_a_new_or_an_empty_folder_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert init("smoke", tmp_path / "empty").exit_code == 0
    for place, problem in ((tmp_path / "empty", "is not empty"), (tmp_path / "file", "is a file")):
        (tmp_path / "file").write_text("mine")
        result = init("smoke", place)
        assert result.exit_code == 2
        assert f"{place}: {problem}; choose a new or an empty folder" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_files_that_a_recipe_refers_to_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = tmp_path / "configs"
    for name, text in {
        "mine/pipeline.yaml": "# Mine. More.\nname: mine\nroots: {model: ../../models/m}\nstages: []\n",
        "mine/sft.yaml": "deepspeed: ../deepspeed/zero2.json # or ../deepspeed/none.json\n",
        "mine/parts/rows.yaml": "shared: ../../shared/a.yaml\n",
        "deepspeed/zero2.json": "{}",
        "shared/a.yaml": "next: ../deepspeed/zero2.json\n",
        "secret.txt": "not referred to",
    }.items():
        (configs / name).parent.mkdir(parents=True, exist_ok=True)
        (configs / name).write_text(text)
    monkeypatch.setattr(recipes, "configs_folder", lambda: configs)
    assert recipes.recipe_list() == ["  mine  Mine"]
    copy = tmp_path / "copy"
    written = {path.relative_to(copy).as_posix() for path in recipes.copy_recipe("mine", copy)}
    assert written == {
        "pipeline.yaml", "sft.yaml", "parts/rows.yaml", "deepspeed/zero2.json", "shared/a.yaml"
    }  # fmt: skip
    assert (copy / "sft.yaml").read_text() == "deepspeed: deepspeed/zero2.json # or ../deepspeed/none.json\n"
    assert (copy / "parts/rows.yaml").read_text() == "shared: ../shared/a.yaml\n"
    assert (copy / "shared/a.yaml").read_text() == "next: ../deepspeed/zero2.json\n"
    assert "roots: {model: ../../models/m}" in (copy / "pipeline.yaml").read_text()


@pytest.mark.long
def test_init_from_a_wheel_that_was_built_from_an_sdist(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("src", "configs"):
        shutil.copytree(
            REPOSITORY / name,
            checkout / name,
            ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "*.pyc"),
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, checkout)
    sdist = _output(checkout, sys.executable, "-c", BUILD, "build_sdist", str(tmp_path)).split()[-1]
    with tarfile.open(tmp_path / sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.removesuffix(".tar.gz")
    wheel = _output(unpacked, sys.executable, "-c", BUILD, "build_wheel", str(tmp_path)).split()[-1]
    shutil.rmtree(checkout)
    shutil.rmtree(unpacked)

    venv = tmp_path / "venv"
    _output(tmp_path, sys.executable, "-m", "venv", "--without-pip", str(venv))
    pip = [sys.executable, "-m", "pip", "--python", str(venv), "--disable-pip-version-check"]
    _output(tmp_path, *pip, "install", "--no-deps", "--no-index", str(tmp_path / wheel))
    [packages] = venv.glob("lib/python*/site-packages")
    present = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "present.pth").write_text("\n".join(present))  # dependencies; editable installs stay unseen
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    llamita = str(venv / "bin" / "llamita")
    assert "\n  smoke " in _output(elsewhere, llamita, "init")
    assert "smoke/sft.yaml" not in _output(elsewhere, llamita, "init", "smoke", "new")
    files = ["new/pipeline.yaml", "new/sft.yaml"]
    assert _output(elsewhere, llamita, "validate", *files) == "new/pipeline.yaml: ok\nnew/sft.yaml: ok\n"
    where = "import llamita; print(llamita.__file__)"
    assert str(venv) in _output(elsewhere, str(venv / "bin" / "python"), "-c", where)


def _output(folder: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
