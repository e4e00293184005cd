"""Long work before the first run, such as decoding images: shown as a bar, or by whoever shows the whole sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Shown = Callable[[str, int, int | None], None]  # what is done, how much of it, of how many; "" where nothing is
show: Shown | None = None  # set by the display of a sweep; None: a bar on a terminal


@contextmanager
def working(what: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Show that ``what`` is being done; give a function that takes how many more of ``total``."""
    if show is None:
        with tqdm(total=total, desc=what, unit="img", disable=None if total else True) as bar:
            yield bar.update
        return
    shown, done = show, 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        shown(what, done, total)

    advance(0)
    try:
        yield advance
    finally:
        shown("", 0, None)
