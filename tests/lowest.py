"""The fast tests and a rehearsal with the lowest versions that pyproject.toml allows.

    python tests/lowest.py [folder of the environment]

Makes a virtual environment with this Python, installs every direct dependency in the lowest version of its range, and
runs `pytest` and a sweep there. PyTorch's wheels of that time take gigabytes, so this is not part of every test run.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("fd",)  # those whose versions the package itself is written for


def lowest() -> list[str]:
    """Return ``name==version`` of every direct dependency, from the lower bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [need for extra in EXTRAS for need in project["optional-dependencies"][extra]]
    return [re.sub(r"^([\w.-]+)(?:\[.*\])?(?:>=|==)([\w.]+).*", r"\1==\2", need) for need in wanted]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="lowest-"))
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    (folder / "lowest.txt").write_text("\n".join(lowest()) + "\n", encoding="utf-8")
    print((folder / "lowest.txt").read_text(encoding="utf-8"), flush=True)
    for line in (
        ["-m", "pip", "install", "--quiet", "-e", f"{ROOT}[dev]", "-c", str(folder / "lowest.txt")],
        ["-m", "vae_sweep", "-m", "model=fc,conv", "params=tiny", "experiment=smoke", f"paths.root={folder}"],
        ["-m", "pytest", "-m", "not slow", "--ignore", "tests/test_quality.py"],
    ):
        print("+ python", *line, flush=True)
        subprocess.run([python, *line], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
