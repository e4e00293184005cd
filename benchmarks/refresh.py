"""What keeping the comparison up to date costs: a sweep of many cells, each one tiny epoch, one after the other.

    python benchmarks/refresh.py --cells 200

Prints how often the sweep's table was written again, the seconds that took, and the seconds of the whole sweep.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from typing import Any

from vae_sweep.cli import main
from vae_sweep.report import publish


def run(cells: int) -> str:
    """Run the sweep in a new folder; return the line to print."""
    seconds: list[float] = []
    refresh = publish.refresh

    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return refresh(*arguments, **named)
        finally:
            seconds.append(time.perf_counter() - began)

    publish.refresh = timed
    sys.argv[1:] = ["-m", "model=linear", "params=tiny", f"seed=range({cells})", "experiment=smoke"]
    sys.argv += ["training.max_epochs=1", "dataset.n_train=100", "dataset.n_test=30", "hydra/launcher=basic"]
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
        os.chdir("/")
    whole = time.perf_counter() - began
    return f"{cells} cells: {len(seconds)} refreshes took {sum(seconds):.1f} s of {whole:.0f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200)
    print(run(parser.parse_args().cells))
