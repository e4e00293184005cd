"""What a command shows while its runs train: a live table on a terminal, else a few lines; it reads their status files.

The runs may train in this process, in others or on other machines: each writes its log to its own folder only.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vae_sweep.base import working
from vae_sweep.sweeps.status import FILE, Status, read
from vae_sweep.sweeps.timeleft import duration, said, sweep_left

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod, RenderableType
    from rich.table import Table

    from vae_sweep.comparison.rows import Cell

LOOK_EVERY = 1.0  # seconds between two looks at the status files; drawing takes 4 ms
LINE_EVERY = 60.0  # seconds between two lines on the whole sweep, where there is no terminal
HEAD: dict[str, JustifyMethod] = {
    **dict.fromkeys(("cell", "state"), "left"),
    **dict.fromkeys(("epoch", "val loss"), "right"),
    "trend": "left",
    **dict.fromkeys(("images/s", "time left"), "right"),
}
BARS = "▁▂▃▄▅▆▇█"
STYLES = {"waiting": "dim", "finished": "green", "failed": "bold red", "stopped": "yellow", "measuring": "magenta"}
FIRST = ("failed", "stopped", "starting", "training", "measuring", "finished", "waiting")  # of many runs


displays: list[Display] = []  # that this process shows, at most one


def stop_display() -> None:
    """Leave the terminal as it was, with the last state above; does nothing where nothing is shown."""
    while displays:
        displays.pop().stop()


def display_of(progress: str) -> Display | None:
    """Return the display that the setting ``progress`` asks for; None leaves the log where it is."""
    from rich.console import Console

    console = Console()
    if progress == "auto":
        progress = "table" if console.is_terminal and not console.is_dumb_terminal else "plain"
    return {"table": Screen, "plain": Lines, "none": Display}.get(progress, lambda: None)()


def quiet_log() -> None:
    """Keep the log of a run off the terminal; its file has it."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


class Display:
    """Shows warnings, at the end; the base of the others."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._cells: Sequence[Cell] = ()
        self._finished: Collection[str] = ()
        self._single = ""
        self._warned: dict[tuple[str, float], int] = {}  # run, when it started -> how many of its warnings were shown

    def start(self) -> None:
        """Show what is prepared."""

    def watch(self, folder: Path, cells: Sequence[Cell] = (), finished: Collection[str] = (), single: str = "") -> None:
        """Show the runs in the folder of a sweep: its ``cells``, where they are known; or a ``single`` one, by key.

        ``finished``: keys of cells that were finished before.
        """
        for old in folder.glob(f"{single or '*'}/{FILE}"):
            old.unlink(missing_ok=True)
        for name in ("hydra", "hydra_plugins"):  # launchers list their jobs
            logging.getLogger(name).setLevel(logging.WARNING)
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)
        self._folder, self._cells, self._finished, self._single = folder, cells, finished, single

    def stop(self) -> None:
        """Show the end."""
        for warning in self.new_warnings(self.runs()):
            _print(f"warning: {warning}")

    def runs(self) -> list[Status]:
        """Return what every run is doing, in the order of the cells."""
        if self._folder is None:
            return []
        if self._cells:
            return [read(self._folder / cell.key) or self._unseen(cell) for cell in self._cells]
        folders = sorted(file.parent for file in self._folder.glob(f"{self._single or '*'}/{FILE}"))
        return sorted(filter(None, map(read, folders)), key=lambda run: run.started)

    def _unseen(self, cell: Cell) -> Status:
        """The status of a cell that no worker has looked at."""
        state = "finished" if cell.key in self._finished else "waiting"
        return Status(cell.name, cell.model, state, skipped=state == "finished")

    def new_warnings(self, runs: Sequence[Status]) -> list[str]:
        """Return the warnings since the last call."""
        found = []
        for run in runs:
            new = run.n_warnings - self._warned.get((run.name, run.started), 0)
            if new > 0:
                found += run.warnings[-new:]
                self._warned[run.name, run.started] = run.n_warnings
        return found


class Lines(Display):
    """A line where a run starts and ends, one a minute between, and warnings as they come."""

    def start(self) -> None:
        self._seen: dict[tuple[str, float], set[str]] = {}  # run, when it started -> what was printed of it
        self._line_at = time.monotonic() + LINE_EVERY
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="vae_sweep-display", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if not self._done.is_set():
            self._done.set()
            self._thread.join(5)
            self._tell(self.runs())

    def _look(self) -> None:
        while not self._done.wait(LOOK_EVERY):
            runs = self.runs()
            self._tell(runs)
            if time.monotonic() > self._line_at and not all(run.ended for run in runs):
                self._line_at = time.monotonic() + LINE_EVERY
                whole = [f"{_counted(runs)}{_left(runs)}"] if len(runs) > 1 else []
                if line := "; ".join([*whole, *(_line(run) for run in runs if run.active)]):
                    _print(line)

    def _tell(self, runs: Sequence[Status]) -> None:
        """Print what has happened since the last look, in order."""
        happened: list[tuple[float, str]] = []
        for run in runs:
            seen = self._seen.setdefault((run.name, run.started), set())
            if run.state not in ("waiting", "starting") and "started" not in seen and not run.skipped:
                happened.append((run.started, f"{run.name} started"))
                seen.add("started")
            happened += [(run.ended or run.written, f"warning: {said}") for said in self.new_warnings([run])]
            if run.ended and "ended" not in seen:
                happened.append((run.ended, f"{run.name} {run.state}" + (f": {run.reason}" if run.reason else "")))
                seen.add("ended")
        for _, line in sorted(happened, key=lambda event: event[0]):
            _print(line)


class Screen(Display):
    """A live table: a row for each run, the time left, the last warning."""

    def start(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._work: tuple[str, int, int | None] = ("", 0, None)
        self._worked = time.monotonic()
        self._spinner = Spinner("line")
        self._last: list[str] = []
        self._stopped = False
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self._render, console=Console(), refresh_per_second=1 / LOOK_EVERY)
        self._live.start()
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stdout)  # lines above the table, not through it
        working.show = self._show_work

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            working.show = None
            with suppress(OSError):  # the terminal may be closed
                self._live.stop()
            for handler in logging.getLogger().handlers:
                if type(handler) is logging.StreamHandler:
                    handler.setStream(sys.stdout)

    def _show_work(self, what: str, done: int, total: int | None) -> None:
        if what != self._work[0]:
            self._worked = time.monotonic()
        self._work = what, done, total

    def _render(self) -> RenderableType:
        with self._lock:
            runs = self.runs()
            self._last = [*self._last, *self.new_warnings(runs)]
        if self._folder is None or not runs:
            return "" if self._stopped else self._preparing()
        return shown(runs, self._last, self._live.console)

    def _preparing(self) -> RenderableType:
        what, done, total = self._work
        waited = duration(time.monotonic() - self._worked)
        of = f": {done:,} of {total:,}" if total else ""
        self._spinner.text = f" {what or 'preparing'}{of}, {waited}"
        return self._spinner


def shown(runs: Sequence[Status], warnings: Sequence[str], console: Console) -> RenderableType:
    """Return what a terminal shows of the runs: counts and time left, the table, the last warning."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [table(runs, console)]
    if len(runs) > 1:
        parts.insert(0, Text(f"{_counted(runs)}{_left(runs)}", "bold"))
    if warnings:
        parts.append(Text(f"{len(warnings)} warning{'s' * (len(warnings) > 1)}; the last: {warnings[-1]}", "yellow"))
    return Group(*parts)


def table(runs: Sequence[Status], console: Console) -> Table:
    """Return a row for each run; where the terminal is too low, what waits or has finished is left out and counted."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    room = max(console.size.height - 8, 3)
    first = sorted(runs, key=lambda run: FIRST.index(run.state))[:room] if len(runs) > room else runs
    shown, now = [run for run in runs if run in first], time.time()
    ascii_only = console.options.ascii_only
    rows = [_cells(run, now, ascii_only) for run in shown]
    others = sum(max(map(len, column)) + 2 for column in list(zip(HEAD, *rows, strict=True))[1:])
    most = max(console.width - others, 8)
    found = Table(box=None if ascii_only else SIMPLE_HEAD, pad_edge=False, show_edge=False)
    found.padding = (0, 2 if ascii_only else 1, 0, 0)
    for name, justify in HEAD.items():
        found.add_column(name, justify=justify, no_wrap=True)
    for run, (name, *cells) in zip(shown, rows, strict=True):
        clipped = name if len(name) <= most else name[: most - 1] + ("~" if ascii_only else "…")
        found.add_row(*(Text(cell, STYLES.get(run.state, "")) for cell in (clipped, *cells)))
    if len(shown) < len(runs):
        left_out = Counter(run.state for run in runs if run not in shown)
        found.caption = f"and {len(runs) - len(shown)} more: {_list(left_out)}"
        found.caption_justify = "left"
    return found


def _cells(run: Status, now: float, ascii_only: bool) -> list[str]:
    left = run.left_at(now)
    last = said((left, run.bound)) if run.state == "training" and left is not None else ""
    return [
        run.name,
        run.state,
        str(run.epoch or ""),
        f"{run.val[-1]:.{run.digits}f}" if run.val else "",
        trend(run.val, ascii_only),
        f"{run.images_per_s:,.0f}" if run.images_per_s else "",
        "before" if run.skipped else f"took {duration(run.ended - run.started)}" if run.ended else last,
    ]


def trend(val: Sequence[float], ascii_only: bool = False) -> str:
    """Return the last eight losses as bars, the highest on top; or a word where the terminal has no such letters."""
    known = [loss for loss in val[-8:] if abs(loss) < float("inf")]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    if ascii_only:
        return "flat" if low == high else "falls" if known[-1] == low else "rises"
    return "".join(BARS[round((loss - low) / (high - low or 1.0) * (len(BARS) - 1))] for loss in known)


def _counted(runs: Sequence[Status]) -> str:
    took = max(run.ended for run in runs) - min((run.started for run in runs if run.started), default=0.0)
    over = f"; took {duration(took)}" if all(run.ended for run in runs) else ""
    return f"{len(runs)} cells: {_list(Counter(run.state for run in runs))}{over}"


def _list(states: Counter[str]) -> str:
    order = ("finished", "failed", "stopped", "training", "measuring", "starting", "waiting")
    return ", ".join(f"{states[state]} {state}" for state in order if states[state])


def _left(runs: Sequence[Status]) -> str:
    left = sweep_left(runs, time.time())
    return f"; {said(left)} left" if left else ""


def _line(run: Status) -> str:
    known = [f"epoch {run.epoch}", f"val {run.val[-1]:.{run.digits}f}"] if run.val else []
    left = run.left_at(time.time())
    known += [f"{said((left, run.bound))} left"] if left is not None and run.state == "training" else []
    return f"{run.name} {', '.join([run.state, *known])}"


def _print(line: str) -> None:
    with suppress(OSError):  # its reader, such as `head`, may have seen enough
        print(f"{time.strftime('%H:%M:%S')} {' '.join(line.split())}", flush=True)
