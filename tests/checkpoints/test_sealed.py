"""Checkpoints: damaged ones are skipped, the newest are kept, and a full disk stops no run."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from llamita.checkpoints import sealed
from llamita.checkpoints.sealed import SEAL, TEMPORARY, Checkpoints
from llamita.errors import LlamitaError


def writer(text: str):
    def write(folder: Path) -> None:
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "state.pt").write_text(text)
        (folder / "deep" / "weights").write_text(text * 2)

    return write


def saved(tmp_path: Path, *steps: int, keep_last: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "resume", keep_last)
    assert all(checkpoints.save(step, writer(f"step {step}")) for step in steps)
    return checkpoints


def test_keep_every(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "resume", keep_last=1, keep_every=10)
    for step in (5, 10, 15, 20, 25):
        assert checkpoints.save(step, writer("state"))
    assert sorted(map(Checkpoints.step, checkpoints.folder.glob("checkpoint-*"))) == [10, 20, 25]


def test_the_newest_ones_are_kept_and_the_newest_is_used(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 9, 10)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "checkpoint-10",
        "checkpoint-9",
        TEMPORARY,
    ]
    newest = checkpoints.newest()
    assert newest is not None
    assert checkpoints.step(newest) == 10
    assert (newest / "deep" / "weights").read_text() == "step 10step 10"


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "resume").newest() is None


def flip(folder: Path) -> None:
    (folder / "state.pt").write_text("step 8")


def truncate(folder: Path) -> None:
    (folder / "deep" / "weights").write_text("step")


def lose(folder: Path) -> None:
    (folder / "deep" / "weights").unlink()


def unseal(folder: Path) -> None:
    (folder / SEAL).unlink()


def half_seal(folder: Path) -> None:
    (folder / SEAL).write_text('{"step": 9, "fi')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "state.pt: its checksum"),
        (truncate, "weights: 4 bytes; expected 12"),
        (lose, "weights: missing"),
        (unseal, f"{SEAL}: missing or damaged"),
        (half_seal, f"{SEAL}: missing or damaged"),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage, message: str
) -> None:
    checkpoints = saved(tmp_path, 8, 9)
    damage(checkpoints.folder / "checkpoint-9")
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.name == "checkpoint-8"
    assert message in capsys.readouterr().out
    assert checkpoints.save(9, writer("again"))  # replaces the damaged one
    assert checkpoints.newest() == checkpoints.folder / "checkpoint-9"


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "resume"
    writer("half")(folder / TEMPORARY / "checkpoint-5")
    assert Checkpoints(folder).newest() is None
    assert not (folder / TEMPORARY).exists()


def test_a_full_disk_does_not_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = saved(tmp_path, 3)

    def fail(folder: Path) -> None:
        (folder / "state.pt").write_text("ha")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "state.pt"))

    assert not checkpoints.save(4, fail)
    assert "checkpoint-4: not saved: OSError: [Errno 28] No space left on device" in capsys.readouterr().out
    assert checkpoints.newest() == checkpoints.folder / "checkpoint-3"
    assert not list(checkpoints.folder.rglob("*4*"))


def test_a_rank_for_which_others_wait_does_not_wait_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed's `save_checkpoint` ends with a barrier, which a rank with an error does not reach."""
    monkeypatch.setattr(sealed, "world_size", lambda: 2)

    def fail(folder: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.raises(LlamitaError, match=r"checkpoint-4: not saved: .*quota exceeded\. With DeepSpeed"):
        Checkpoints(tmp_path / "resume", zero_stage=2).save(4, fail)


def test_damaged_checkpoints_do_not_replace_new_ones(tmp_path: Path) -> None:
    """Training begins again and saves earlier steps than those of the damaged checkpoints."""
    checkpoints = saved(tmp_path, 8, 9)
    for name in ("checkpoint-8", "checkpoint-9"):
        truncate(checkpoints.folder / name)
    assert checkpoints.newest() is None
    for step in (2, 4, 6):
        assert checkpoints.save(step, writer("again"))
        assert checkpoints.newest() == checkpoints.folder / f"checkpoint-{step}"
    assert sorted(map(Checkpoints.step, checkpoints.folder.glob("checkpoint-*"))) == [4, 6]


def test_without_enough_space_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path, 3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert not checkpoints.save(4, writer("more"))
    assert "checkpoint-4: not saved: 10 bytes are free, 20 are required" in capsys.readouterr().out
    assert checkpoints.newest() == checkpoints.folder / "checkpoint-3"


def test_files_beside_the_sealed_ones_need_no_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the form for other ranks, which is larger than the checkpoint."""
    checkpoints = saved(tmp_path, 3)
    (checkpoints.folder / "checkpoint-3" / "universal").write_bytes(bytes(1000))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    assert checkpoints.save(4, writer("more"))
