"""Creates, resumes and publishes working folders."""

from __future__ import annotations

from pathlib import Path

from llamita import working


def begin(final: Path, fingerprint: str, text: str = "") -> str:
    """Starts or resumes a stage that appends `text` to its file; returns the whole text."""
    with working.open_working(final, {"fingerprint": fingerprint}, resumable=True) as out:
        with (out / "made.txt").open("a") as file:
            file.write(text)
        return (out / "made.txt").read_text()


def publish(final: Path, text: str) -> None:
    """Runs and publishes a stage that writes `text`."""
    with working.open_working(final, {"fingerprint": text}, resumable=True) as out:
        (out / "made.txt").write_text(text)
        working.publish(final, {"stage": "maker"})


def names(folder: Path) -> list[str]:
    """Names of the entries of a folder."""
    return sorted(path.name for path in folder.iterdir())
