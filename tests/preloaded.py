"""A process that has imported the libraries once; every command of the tests runs in a fork of it.

Importing PyTorch, MLflow and scikit-learn takes ten times as long as most of the commands. A fork has its own signals,
environment, modules and exit code, like a process that was started anew. What Python reads when it starts (PYTHONPATH,
locale, warnings) is that of the tests: a test that changes it starts ``python`` itself.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import sys
import threading
import weakref
from typing import Any

MODULES = (
    *("vae_sweep.cli", "vae_sweep.compare", "vae_sweep.generate", "vae_sweep.relocate", "vae_sweep.sweeps.execute"),
    *("vae_sweep.report.publish", "vae_sweep.report.page", "vae_sweep.sweeps.remeasure", "vae_sweep.metrics.features"),
    *(
        "alembic.command",
        "joblib",
        "matplotlib.backends.backend_agg",
        "mlflow",
        "mlflow.store.tracking.sqlalchemy_store",
    ),
    *("sklearn.linear_model", "sklearn.mixture", "torchvision.datasets"),
)


def become(request: dict[str, Any], set_by_imports: dict[str, str]) -> None:
    """Be ``python -m module arguments`` in its folder, with its environment, its output in two files."""
    os.chdir(request["cwd"])
    for number, name in enumerate([os.devnull, request["stdout"], request["stderr"]]):
        opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(set_by_imports | request["environment"])
    sys.path[0] = os.getcwd()
    sys.argv = ["", *request["arguments"]]
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    finally:
        threading._shutdown()  # joblib ends its workers here; functions of atexit come after it, as in any process
        atexit._run_exitfuncs()  # a fork ends without them, and without taking down every module, which takes long


def serve() -> None:
    """Run a command for every line of standard input: answer with its process, then with its exit code."""
    before = set(os.environ)
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # a fork's garbage collection need not look at what was imported
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # nor does its end need to take that down
    set_by_imports = {name: value for name, value in os.environ.items() if name not in before}
    for line in iter(sys.stdin.readline, ""):
        process = multiprocessing.get_context("fork").Process(target=become, args=(json.loads(line), set_by_imports))
        process.start()
        print(process.pid, flush=True)
        process.join()
        print(process.exitcode, flush=True)


if __name__ == "__main__":
    serve()
