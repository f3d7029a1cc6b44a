"""Artifacts: names of folders, hashes of contents, atomic writes of JSON."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llamita import artifact, hashes
from llamita.errors import DataError


def test_names_of_folders() -> None:
    final = Path("runs/smoke/sft")
    partial = artifact.working_folder(final)
    assert partial == Path("runs/smoke/sft.partial")
    for folder in (final, partial):
        assert artifact.stage_name(folder) == "sft"
        assert artifact.run_name(folder) == "smoke"
        assert artifact.final_folder(folder) == final


def stage(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"name": name}))
    return folder


def test_stages_of_one_run_and_of_several(tmp_path: Path) -> None:
    run = [stage(tmp_path / "a/sft", "sft"), stage(tmp_path / "a/v1/ppo", "v1/ppo")]
    artifact.check_single_run(tmp_path / "a", run)
    for other in (run[:1], [*run, stage(tmp_path / "b/sft", "sft")]):
        with pytest.raises(DataError, match="is not the folder of one run") as caught:
            artifact.check_single_run(tmp_path, other)
    assert str(caught.value).endswith(f"expected one of {tmp_path}/a, {tmp_path}/b")
    # stages started alone: one for all runs, and rounds made by hand
    shared = stage(tmp_path / "tokenizer", "tokenizer")
    stage(tmp_path / "a/report", "report")
    with pytest.raises(DataError, match=f"expected one of {tmp_path}/a$"):
        artifact.check_single_run(tmp_path, [shared, *run])
    by_hand = stage(tmp_path / "a/v2/ppo", "ppo")
    artifact.check_single_run(tmp_path / "a", [*run, by_hand])


def test_model_folder(tmp_path: Path) -> None:
    assert artifact.model_folder(tmp_path) == tmp_path
    (tmp_path / "model").mkdir()
    assert artifact.model_folder(tmp_path) == tmp_path / "model"


def _change_content(folder: Path) -> None:
    (folder / "model" / "weights").write_text("other")


def _rename_file(folder: Path) -> None:
    (folder / "model" / "weights").rename(folder / "model" / "weightz")


def _add_file(folder: Path) -> None:
    (folder / "new").write_text("")


def _change_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def _change_metrics(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"seconds": 3}')


def _add_wandb(folder: Path) -> None:
    (folder / "wandb").mkdir()
    (folder / "wandb" / "log").write_text("now")


def _add_checkpoint(folder: Path) -> None:
    (folder / artifact.RESUME / "checkpoint-10").mkdir(parents=True)
    (folder / artifact.RESUME / "checkpoint-10" / "optimizer.pt").write_text("state")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (_change_content, True),
        (_rename_file, True),
        (_add_file, True),
        (_change_manifest, False),
        (_change_metrics, False),
        (_add_wandb, False),
        (_add_checkpoint, False),
    ],
)
def test_content_hash(tmp_path: Path, change: Callable[[Path], None], counts: bool) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("w")
    before = hashes.content_hash(tmp_path)
    change(tmp_path)
    assert (hashes.content_hash(tmp_path) != before) is counts


def test_input_hash_of_plain_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "text.txt"
    file.write_text("abc")
    before = {hashes.input_hash(file), hashes.input_hash(tmp_path / "data")}
    os.utime(file, (1, 1))
    assert {hashes.input_hash(file), hashes.input_hash(tmp_path / "data")} == before
    file.write_text("abd")
    assert not {hashes.input_hash(file), hashes.input_hash(tmp_path / "data")} & before
    monkeypatch.setattr(hashes, "BIG_INPUT", 2)
    by_time = hashes.input_hash(file)
    os.utime(file, (2, 2))
    assert hashes.input_hash(file) != by_time
    with pytest.raises(DataError, match="no such file"):
        hashes.input_hash(tmp_path / "nothing")


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """Paths may contain such names; a training run must not fail at its end because of one."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.txt")).write_text("text")
    assert hashes.input_hash(folder)
    assert hashes.content_hash(folder)
    assert hashes.digest({"path": str(folder)})
    artifact.write_json(tmp_path / "x.json", {"path": str(folder)})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"path": str(folder)}


def test_read_manifest_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the folder of a finished stage"):
        artifact.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: invalid JSON"):
        artifact.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="expected a JSON object"):
        artifact.read_manifest(tmp_path)


def test_write_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    artifact.write_json(path, {"nan": float("nan"), "list": [1.5, float("inf")], "ü": None})
    assert json.loads(path.read_text(encoding="utf-8")) == {"nan": None, "list": [1.5, None], "ü": None}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def _disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_in_write_json_names_the_file_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    artifact.write_json(path, {"old": 1})
    monkeypatch.setattr(artifact.os, "fsync", _disk_full)
    with pytest.raises(OSError, match="No space left") as caught:
        artifact.write_json(path, {"new": 1})
    assert caught.value.filename == str(path)
    assert json.loads(path.read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
