"""Memory, cores, home folders and terminal of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

from vae_sweep.base.errors import UserError

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB", "EB")


def total_memory() -> float:
    """Return the bytes of memory that this process may use; infinity where the system does not say."""
    known = [float("inf")]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in LIMITS:
        with contextlib.suppress(OSError, ValueError):
            known.append(int(Path(limit).read_text(encoding="utf-8")))
    return min(known)


def check_memory(need: int, what: str, advice: str) -> None:
    """Check that ``need`` bytes fit into this machine's memory.

    Raises:
        UserError: if not; it begins with ``what`` and ends with ``advice``.
    """
    if need > total_memory():
        raise UserError(f"{what} need {shown(need)} of memory, and this machine has {shown(total_memory())}; {advice}")


def reset_peak_memory() -> None:
    """Let :func:`peak_memory` count from now on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory() -> float | None:
    """Return the most memory that this process has had, in MB: since :func:`reset_peak_memory`, or since it started.

    None where the system does not say.
    """
    with contextlib.suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6
    with contextlib.suppress(ImportError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024) / 1e6
    return None


def resolve_path(root: Path, path: str, key: str) -> Path:
    """Return ``path``, the value of ``key``, with ``~`` expanded; a relative one is relative to ``root``.

    Raises:
        UserError: for a user without a home folder.
    """
    try:
        return root / Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{key}={path}: there is no user with this home folder; write the path in full") from None


def shown(n_bytes: float) -> str:
    """Return ``n_bytes`` as text, such as 1.5 GB."""
    power = 0
    while n_bytes >= 1000 and power < len(UNITS) - 1:
        n_bytes, power = n_bytes / 1000, power + 1
    return f"{n_bytes:.3g} {UNITS[power]}"


def available_cores() -> int:
    """Return the number of CPU cores that this process may use, by its affinity and its container's quota."""
    from joblib import cpu_count

    return cpu_count()


def terminal_width() -> int:
    """Return the columns of the terminal, or COLUMNS where that is set; 160 where there is no terminal."""
    return max(shutil.get_terminal_size((160, 24)).columns, 40)
