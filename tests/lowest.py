"""The fast tests and a rehearsal with the lowest versions that pyproject.toml allows.

    python tests/lowest.py                              # all of them
    python tests/lowest.py --except torch torchvision   # but for these, whose old wheels take gigabytes

Makes a virtual environment with this Python, installs every direct dependency in the lowest version of its range, then
runs a sweep and the fast tests there. Not part of CI: PyTorch 2.4 and its CUDA libraries take long to download.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lowest(but: list[str]) -> list[str]:
    """Return ``name==version`` of every direct dependency, from the lower bounds; the feature networks' too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = project["dependencies"] + project["optional-dependencies"]["fd"]
    found = [re.match(r"([\w.-]+)(?:>=|==)([\w.]+)", need) for need in needs]
    return [f"{need[1]}=={need[2]}" for need in found if need and need[1] not in but]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--except", nargs="+", default=[], dest="but", help="packages that may be of any version")
    parser.add_argument("--folder", type=Path, help="where the environment goes; without it a temporary folder")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="lowest-"))
    venv.create(folder, with_pip=True)
    pinned = lowest(given.but)
    (folder / "lowest.txt").write_text("\n".join(pinned) + "\n", encoding="utf-8")
    print(*pinned, flush=True)
    for line in (
        ["-m", "pip", "install", "--quiet", "-e", f"{ROOT}[dev]", "-c", str(folder / "lowest.txt")],
        ["-m", "vae_sweep", "-m", "model=fc,conv", "params=tiny", "experiment=smoke", f"paths.root={folder}"],
        # Types and format are those of the newest versions; old libraries are told of what is deprecated in new ones.
        ["-m", "pytest", "--ignore", "tests/test_quality.py", "-W", "ignore::DeprecationWarning"],
    ):
        print("+ python", *line, flush=True)
        subprocess.run([str(folder / "bin" / "python"), *line], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
