"""vae_sweep: does the architecture of a VAE matter, and by how much?

>>> import vae_sweep as vs
>>> sweep = vs.load_sweep("last")
>>> sweep.table[["name", "test_loss"]], sweep.contrasts
>>> images = sweep.runs["conv-p1"].model().sample(16)  # (16, C, H, W) in [0, 1]

The functions are those of :mod:`vae_sweep.api`; what they need is imported when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_sweep.api import Run, Sweep, UserError, load_dataset, load_model, load_run, load_sweep

__version__ = "0.2.0"
__all__ = ["Run", "Sweep", "UserError", "load_dataset", "load_model", "load_run", "load_sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vae_sweep import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
