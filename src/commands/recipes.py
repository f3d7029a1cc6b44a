"""The shipped recipes, folders of `configs/` with a `pipeline.yaml`: lists and copies them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError
from ..yaml_file import nearest, read_yaml

PIPELINE = "pipeline.yaml"
SCHEMA_LINE = "# yaml-language-server:"
_SOURCES = Path(__file__).resolve().parents[1]
_REFERENCE = re.compile(r"(?<![\w./~])(?:\.\./)+[\w.-]+(?:/[\w.-]+)*")


def configs_folder() -> Path:
    """The folder of all recipes: packed into the installed package, or `configs/` of the checkout."""
    packed = _SOURCES / "recipes"
    return packed if packed.is_dir() else _SOURCES.parent / "configs"


def recipe_names() -> list[str]:
    """The names of the shipped recipes in alphabetical order."""
    return sorted(path.parent.name for path in configs_folder().glob(f"*/{PIPELINE}"))


def description(recipe: str) -> str:
    """The first sentence of the comment at the top of the recipe's `pipeline.yaml`."""
    words: list[str] = []
    for line in (configs_folder() / recipe / PIPELINE).read_text(encoding="utf-8").splitlines():
        if line.startswith(SCHEMA_LINE):
            continue
        if not line.startswith("#"):
            break
        words += line.lstrip("# ").split()
    return " ".join(words).split(". ")[0].rstrip(".")


def recipe_list() -> list[str]:
    """One line for each recipe: its name and what it is."""
    names = recipe_names()
    width = max(map(len, names))
    return [f"  {name:{width}}  {description(name)}" for name in names]


def copy_recipe(recipe: str, folder: Path) -> list[Path]:
    """Copies a recipe with its comments, and the files outside of it that it refers to, into `folder`.

    Relative references such as `../deepspeed/zero2.json` are rewritten so that they lead to the copies;
    commands in comments name `folder` in place of `configs/<recipe>`.

    Returns the paths of the files written.
    Raises ConfigError for an unknown recipe and for a folder that is not empty.
    """
    names = recipe_names()
    if recipe not in names:
        listing = "\n".join(recipe_list())
        raise ConfigError(
            f"there is no recipe {recipe!r}{nearest(recipe, names)}; the recipes are\n{listing}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise ConfigError(f"{folder}: {what}; choose a new or an empty folder")
    configs = configs_folder()
    targets: dict[Path, Path] = {}
    waiting = sorted(path for path in (configs / recipe).rglob("*") if path.is_file())
    while waiting:
        source = waiting.pop(0)
        if source not in targets:
            targets[source] = folder / _place(source, configs, recipe)
            waiting += _referred(source, configs)
    for source, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _with_new_references(source, targets)
        target.write_text(text.replace(f"configs/{recipe}/", f"{folder}/"), encoding="utf-8")
    return list(targets.values())


def _place(source: Path, configs: Path, recipe: str) -> Path:
    """The path of a copy in the new folder: files of the recipe are at its top, others keep their folder."""
    place = source.relative_to(configs)
    return Path(*place.parts[1:]) if place.parts[0] == recipe else place


def _referred(source: Path, configs: Path) -> Iterator[Path]:
    """The files of other folders of `configs` that a file refers to, by themselves or by their folder."""
    for match in _REFERENCE.finditer(source.read_text(encoding="utf-8")):
        path = Path(os.path.normpath(source.parent / match[0]))
        if path.is_relative_to(configs) and path != configs:
            yield from (one for one in (path, *sorted(path.glob("*"))) if one.is_file())


def _with_new_references(source: Path, targets: dict[Path, Path]) -> str:
    """The text of a file, its references to other copied files and folders relative to its own copy."""
    copies = {one.parent: copy.parent for one, copy in targets.items()} | targets

    def rewritten(match: re.Match[str]) -> str:
        referred = copies.get(Path(os.path.normpath(source.parent / match[0])))
        if referred is None:
            return match[0]
        return Path(os.path.relpath(referred, targets[source].parent)).as_posix()

    return _REFERENCE.sub(rewritten, source.read_text(encoding="utf-8"))


def next_commands(folder: Path) -> list[str]:
    """The commands to type after copying: validate, and run with the folders that the pipeline needs."""
    pipeline = folder / PIPELINE
    roots = read_yaml(pipeline).data.get("roots") or {}
    missing = [
        f" roots.{name}={'FOLDER' if path is None else 'FOLDER_OR_HUB_ID'}"
        for name, path in roots.items()
        if path is None or not (folder / path).exists()
    ]
    return [f"llamita validate {pipeline}", f"llamita run {pipeline}{''.join(missing)}"]
