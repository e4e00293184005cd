"""Kill a sweep with ``kill -9`` again and again, let the same command finish it, compare with one left alone.

    python tests/torture/kill.py --kills 25 --seed 0

The command's first process, one of its workers and all of its processes are killed in turn, at random moments that are
spread over start-up, training, evaluation and the refresh of the table. Exit code 0 if every finished sweep equals the
one that was left alone; ``--strict`` also wants no remarks, such as workers that live on without their parent. It needs
Linux: it looks for processes in /proc.

The stages come in turn; within a stage the moment is random, drawn with the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import os
import random
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TARGETS = ("parent", "worker", "group")
STAGES = ("training", "evaluation", "start-up", "table")  # 4 stages and 3 targets meet in all 12 pairs
GRIDS = {"full": ("model=fc,conv", "params=p1,p2,p3"), "tiny": ("model=linear,fc", "params=tiny")}
TIMINGS = {"wall_time_s", "train_time_s", "images_per_s", "cpu_time_s", "peak_memory_mb"}  # the metrics that may differ
PATIENCE = 900.0  # seconds that a command may take before it counts as hanging
CELL = {  # what the command prints about a cell, and the stage that begins with it
    "opened": r"- (\S+): \d+ parameters on ",
    "resumed": r"- (\S+) continues after epoch (\d+)",
    "epoch": r"- (\S+) epoch (\d+): ",
    "finished": r"- (\S+) finished: test loss ",
    "skipped": r"- (\S+) is already finished, as run ",
}


# --- processes ---


@dataclass(frozen=True)
class Process:
    """One living process; pid and start time together are never used twice."""

    pid: int
    start: int
    role: str  # parent, worker, tracker (joblib's cleaner) or other


def members(session: int) -> list[Process]:
    """Return the living processes of a session: all that a command started, orphans included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session or fields[0] in "ZX":
                continue
            words, pid = (folder / "cmdline").read_bytes().decode(errors="replace"), int(folder.name)
            role = "worker" if "popen_loky" in words else "tracker" if "resource_tracker" in words else "other"
            found.append(Process(pid, int(fields[19]), "parent" if pid == session else role))
    return found


def kill(process: Process, session: int) -> None:
    """Kill -9 one process, if it is still the one that was seen."""
    if process in members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


# --- one start of the command ---


@dataclass
class Progress:
    """What the output of one start says of the cells."""

    cells: int
    epochs: int
    states: dict[str, tuple[str, int]] = field(default_factory=dict)
    phase: str = "start-up"
    last: str = ""

    def read(self, line: str) -> None:
        """Take one line of the command's output into account."""
        if "Launching jobs" in line:
            self.phase = "workers start"
        elif line == "Comparison":
            self.phase = "last table printed"
        elif re.match(r"Sweep \w+: ", line):
            self.phase = "exit"
        for kind, pattern in CELL.items():
            if match := re.search(pattern, line):
                self.phase, self.last = "", kind
                self.states[match[1]] = (kind, int(match[2]) if match.lastindex == 2 else 0)

    def done(self) -> set[str]:
        """The cells that are finished."""
        return {name for name, (kind, _) in self.states.items() if kind in ("finished", "skipped")}

    def says(self, root: Path) -> str:
        """The stage in words."""
        if self.phase:
            return self.phase
        parts = []
        for name, (kind, epoch) in self.states.items():
            if kind in ("epoch", "resumed"):
                parts.append(f"{name} epoch {epoch}" if epoch < self.epochs else f"{name} {after_training(root, name)}")
            elif kind == "opened":
                parts.append(f"{name} opened")
        if self.last in ("finished", "skipped"):
            parts.append("table refresh")
        return f"{len(self.done())} done; " + ", ".join(parts)


def after_training(root: Path, name: str) -> str:
    """How far a cell is after its last epoch, by the artifacts that it has."""
    for path in root.glob("mlruns/*/artifacts/config.yaml"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            model, params = (
                re.search(rf"^{key}:(?:\n .*)*?\n  name: (\S+)", text, re.M) for key in ("model", "params")
            )
            if model and params and f"{model[1]}-{params[1]}" == name:
                pictures = len(list((path.parent / "figures").glob("*.png")))
                return f"pictures ({pictures})" if (path.parent / "checkpoint.pt").exists() else "evaluation"
    return "evaluation"


class Attempt:
    """The command, started once, in a session of its own."""

    def __init__(self, command: list[str], root: Path, logs: Path, tmp: Path, progress: Progress) -> None:
        self.root, self.progress = root, progress
        self.lines: list[tuple[float, str]] = []
        self.out, self.err = logs.with_suffix(".out"), logs.with_suffix(".err")
        for folder in (root, logs.parent, tmp):
            folder.mkdir(parents=True, exist_ok=True)
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "HYDRA_"))}
        clean["VAE_SWEEP_PROGRESS"] = "log"  # what is waited for
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=root,
                env=clean | {"TMPDIR": str(tmp), "COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.session = self.process.pid
        self.started = time.monotonic()
        self._file = self.out.open("rb")
        self._rest = b""

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def read(self) -> None:
        """Take in what the command has printed since the last time."""
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        for raw in whole:
            line = raw.decode(errors="replace")
            self.lines.append((self.elapsed(), line))
            self.progress.read(line)

    def wait(self, reached: Callable[[], bool], limit: float = PATIENCE) -> bool:
        """Watch the output until ``reached``; False if the command ended before, or the limit passed."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            self.read()
            if reached():
                return True
            if self.process.poll() is not None:
                self.read()
                return False
            time.sleep(0.02)
        return False

    def ended(self, limit: float = PATIENCE) -> int | None:
        """Wait for the command to end by itself; return its exit code, or None after the limit."""
        self.wait(lambda: False, limit)
        return self.process.poll()

    def matching(self, pattern: str) -> list[tuple[float, re.Match[str]]]:
        """The lines so far that match, with their moments."""
        return [(moment, match) for moment, line in self.lines if (match := re.search(pattern, line))]

    def living(self) -> list[Process]:
        return members(self.session)

    def workers(self) -> list[Process]:
        return [process for process in self.living() if process.role == "worker"]

    def outlived(self, limit: float) -> tuple[float, list[str]]:
        """Wait until no process is left; return how long workers lived, and who had to be killed in the end.

        joblib's cleaners end after the last worker, so they are waited for once more.
        """
        lived, left = self._watch(limit)
        if "worker" in left:
            for process in self.workers():
                kill(process, self.session)
            left = [role for role in left if role == "worker"] + self._watch(5)[1]
        self.clear()
        return lived, left

    def _watch(self, limit: float) -> tuple[float, list[str]]:
        """Wait until no process is left, or the limit; return how long workers were seen, and the roles of the rest."""
        start, lived = time.monotonic(), 0.0
        while True:
            roles = sorted(process.role for process in self.living())
            lived = time.monotonic() - start if "worker" in roles else lived
            if not roles or time.monotonic() - start > limit:
                return lived, roles
            self.read()
            time.sleep(0.05)

    def clear(self) -> None:
        """Kill whatever is left of the command."""
        while living := self.living():
            for process in living:
                kill(process, self.session)
            time.sleep(0.05)
            self.process.poll()
        self.process.wait()
        self.read()

    def errors(self) -> list[str]:
        """The lines that the command wrote to stderr."""
        return self.err.read_text(errors="replace").strip().splitlines()

    def has_traceback(self) -> bool:
        return any(
            path.read_text(errors="replace").find("Traceback (most recent") >= 0 for path in (self.out, self.err)
        )


# --- what a finished sweep holds ---


@dataclass
class Result:
    """Everything of a finished sweep that must not depend on interruptions."""

    runs: list[tuple[str, str, str]]  # name, role, status
    parts: dict[str, Counter[Any]]  # by kind: the multiset of facts to be compared
    files: set[str]


def result(root: Path) -> Result:
    """Read a sweep from its store, straight from the tables, and its folder."""
    import torch

    files = {general(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as connection:

        def rows(table: str, columns: str) -> list[tuple[Any, ...]]:
            return connection.execute(f"SELECT {columns} FROM {table}").fetchall()

        runs = {
            run: (name, status, ended, life, Path(uri.removeprefix("file://")))
            for run, name, status, ended, life, uri in rows(
                "runs", "run_uuid, name, status, end_time, lifecycle_stage, artifact_uri"
            )
        }
        tags = {(run, key): value for run, key, value in rows("tags", "run_uuid, key, value")}
        cells = {run for run in runs if tags.get((run, "vae_sweep.role")) == "run"}
        name = {run: facts[0] for run, facts in runs.items()}
        parts: dict[str, Counter[Any]] = {
            "metric rows": Counter(
                (name[run], *row)
                for run, *row in rows("metrics", "run_uuid, key, step, value, is_nan")
                if run in cells and row[0] not in TIMINGS
            ),
            "last values": Counter(
                (name[run], *row)
                for run, *row in rows("latest_metrics", "run_uuid, key, value, is_nan")
                if row[0] not in TIMINGS
            ),
            "parameters": Counter(
                (name[run], key, value.replace(str(root), "ROOT"))
                for run, key, value in rows("params", "run_uuid, key, value")
            ),
            "names of tags": Counter((name[run], key) for run, key in tags),
            "inputs and outputs": Counter(
                (kind, name.get(source), name.get(destination))
                for kind, source, destination in rows("inputs", "destination_type, source_id, destination_id")
            ),
            "logged models": Counter(
                (name[run], *facts) for run, *facts in rows("logged_models", "source_run_id, name, status")
            ),
            "metrics of logged models": Counter(
                (name[run], *row)
                for run, *row in rows(
                    "logged_model_metrics", "run_id, metric_name, metric_step, metric_value, dataset_name"
                )
                if row[0] not in TIMINGS
            ),
            "statuses": Counter(
                (facts[0], tags.get((run, "vae_sweep.role")), *facts[1:4:2], facts[2] is not None)
                for run, facts in runs.items()
            ),
        }
    weights, pictures, table = Counter[Any](), Counter[Any](), Counter[Any]()
    for run, (cell, _, _, _, folder) in runs.items():
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".png", ".npy") and run in cells:
                pictures[cell, general(path.relative_to(folder)), digest(path.read_bytes())] += 1
            elif path.name == "checkpoint.pt":
                content = torch.load(path, map_location="cpu", weights_only=True)
                for key, tensor in content["weights"].items():
                    kind = (str(tensor.dtype), tuple(tensor.shape))
                    weights[cell, key, *kind, digest(tensor.contiguous().numpy().tobytes())] += 1
                weights[cell, "facts", repr(content["facts"])] += 1
            elif path.name == "comparison.csv":
                for row in csv.DictReader(path.read_text().splitlines()):
                    table[tuple((k, v) for k, v in row.items() if k not in TIMINGS | {"run_id"})] += 1
    parts |= {"weights (tensors)": weights, "pictures and samples": pictures, "rows of the comparison": table}
    known = [(facts[0], tags.get((run, "vae_sweep.role"), "?"), facts[1]) for run, facts in runs.items()]
    return Result(sorted(known), parts, files)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def general(path: Path) -> str:
    """A file's name without what differs from start to start: run ids and times."""
    named = re.sub(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\w+-sweep", "TIME-sweep", str(path))
    named = re.sub(r"(?<=state/finished/)[0-9a-f]{16}", "FOLDER", named)  # a hash of where the sweep is, too
    named = re.sub(r"\+timestamp\+\d+\+[0-9a-f-]{36}", "+TIME", named)  # an image of MLflow's image grid
    return re.sub(r"[0-9a-f]{32}", "RUN", named)


# --- the torture ---


@dataclass
class Kill:
    """One kill and what followed."""

    target: str
    sweep: int
    moment: float
    stage: str
    code: int | None
    lived: float | None = None  # seconds that workers lived on without their parent
    left: list[str] = field(default_factory=list)  # who still lived at the limit
    said: list[str] = field(default_factory=list)  # on stderr, where the command ended by itself
    traceback: bool = False


@dataclass
class Spans:
    """How long the stages last, in seconds, as the sweep that was left alone had them."""

    startup: float
    evaluation: float
    table: float

    @classmethod
    def of(cls, attempt: Attempt, epochs: int) -> Spans:
        last = {match[1]: moment for moment, match in attempt.matching(CELL["epoch"]) if int(match[2]) == epochs}
        ends = {match[1]: moment for moment, match in attempt.matching(CELL["finished"])}
        return cls(
            startup=attempt.matching(CELL["epoch"])[0][0],
            evaluation=statistics.median(ends[name] - last[name] for name in ends),
            table=attempt.matching("^Comparison$")[0][0] - max(ends.values()),
        )


HURRIED = Spans(6.0, 1.0, 1.0)


class Torture:
    """Sweeps in fresh folders, each killed until it finishes."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.random = random.Random(options.seed)
        axes = GRIDS[options.grid]
        self.cells = 1
        for axis in axes:
            self.cells *= len(axis.partition("=")[2].split(","))
        self.command = [sys.executable, "-m", "vae_sweep", "-m", *axes, "experiment=smoke"]
        self.command += [f"training.max_epochs={options.epochs}", "training.patience=1000"]
        alone = [*self.command, "hydra/launcher=basic"]  # one process, so that less time passes
        self.command += [f"hydra/launcher={options.launcher}"]
        if options.launcher != "basic":
            self.command += ["hydra.launcher.n_jobs=2"]
        self.command_left_alone = self.command if options.grid == "full" else alone
        self.kills: list[Kill] = []
        self.remarks: list[str] = []
        self.faults: list[str] = []
        self.results: list[Result] = []
        self.pids: list[int] = []
        self.starts = 0

    def start(self, root: Path, tmp: Path, command: list[str] | None = None) -> Attempt:
        self.starts += 1
        logs = self.work / "logs" / f"{self.starts:03}"
        attempt = Attempt(command or self.command, root, logs, tmp, Progress(self.cells, self.options.epochs))
        self.pids.append(attempt.session)
        return attempt

    def reference(self) -> contextlib.AbstractContextManager[Attempt]:
        """Start the sweep that is left alone."""
        return attended(self.start(self.work / "reference", self.work / "tmp-reference", self.command_left_alone))

    def left_alone(self, attempt: Attempt) -> Result:
        """Wait for the sweep that is left alone and return what it holds."""
        code = attempt.ended()
        if code != 0:
            words = "\n".join([line for _, line in attempt.lines[-20:]] + attempt.errors()[-20:])
            raise SystemExit(f"the sweep that was left alone ended with exit code {code}:\n{words}")
        return result(attempt.root)

    def run(self, spans: Spans) -> None:
        """Kill until there were enough kills, and let the last sweep finish."""
        number, failures = 1, 0
        finished: set[str] = set()
        while True:
            root = self.work / f"sweep-{number}"
            with attended(self.start(root, self.work / "tmp")) as attempt:
                due = len(self.kills) < self.options.kills
                struck = due and self.strike(attempt, spans, number, self.cells - len(finished))
                finished |= attempt.progress.done()
                if struck and attempt.process.returncode != 0:
                    continue
                code = attempt.ended()
                if code == 0:
                    lived, left = attempt.outlived(self.options.orphans)
                    if left:
                        self.remarks.append(f"sweep {number} finished, but left {', '.join(left)} for {lived:.0f} s")
                    if errors := attempt.errors():
                        self.remarks.append(
                            f"sweep {number} finished, with {len(errors)} lines on stderr: {errors[-1]}"
                        )
                    self.results.append(result(root))
                    log(f"sweep {number} finished")
                    if len(self.kills) >= self.options.kills:
                        return
                    number, finished = number + 1, set()
                    if number > self.options.kills + 2:
                        self.faults.append("the kills do not hit: the sweeps finish before")
                        return
                else:
                    failures += 1
                    words = "; ".join(attempt.errors()[-3:]) or "nothing on stderr"
                    self.faults.append(f"start {self.starts} was not killed but ended with exit code {code}: {words}")
                    log(self.faults[-1])
                    if failures == 3:
                        return

    def strike(self, attempt: Attempt, spans: Spans, number: int, remaining: int) -> bool:
        """Wait for a random moment of the next stage in turn and kill; False if the command ended before."""
        n = len(self.kills)
        target, stage = TARGETS[n % len(TARGETS)], STAGES[n % len(STAGES)]
        if not self.reached(attempt, spans, stage, max(1, remaining)):
            return False
        victims = [process for process in attempt.living() if process.role == "parent"]
        if target == "worker":
            if self.options.launcher == "basic":
                target = "parent"
            elif not attempt.wait(lambda: bool(attempt.workers())):
                return False
            else:
                victims = [self.random.choice(attempt.workers() or victims)]
        attempt.read()
        moment = attempt.elapsed()
        if attempt.process.poll() is not None or not victims:
            return False
        if target == "group":
            os.killpg(attempt.session, signal.SIGKILL)
        else:
            kill(victims[0], attempt.session)
        done = Kill(target, number, moment, attempt.progress.says(attempt.root), None)
        done.code = attempt.ended(PATIENCE if target == "worker" else 30)
        if done.code is None:
            self.faults.append(f"kill {n + 1}: the command did not end within {PATIENCE:.0f} s of its worker's death")
        done.lived, done.left = attempt.outlived(self.options.orphans)
        if target == "worker":
            done.said, done.traceback = attempt.errors(), attempt.has_traceback()
        if target != "worker" and done.code != -signal.SIGKILL:
            return False  # it had ended in the same moment
        self.kills.append(done)
        log(
            f"kill {n + 1}: {target} after {moment:.1f} s ({stage}: {done.stage}), exit code {done.code}, "
            f"workers lived {done.lived:.1f} s" + (f", left: {done.left}" if done.left else "")
        )
        return True

    def reached(self, attempt: Attempt, spans: Spans, stage: str, remaining: int) -> bool:
        """Wait for a random moment of a stage; False if the command ended before."""
        draw = self.random.uniform
        if stage == "start-up":
            moment = draw(0.5, max(1.0, spans.startup))
            return attempt.wait(lambda: attempt.elapsed() >= moment or bool(attempt.progress.states))
        if stage == "training":
            pattern, after = CELL["epoch"], draw(0, 0.5)
            count = self.random.randint(1, max(1, remaining * (self.options.epochs - 1)))
        elif stage == "evaluation":
            last = self.options.epochs
            pattern, after = rf"- (\S+) (epoch {last}: |continues after epoch {last}$)", draw(0, spans.evaluation)
            count = self.random.randint(1, min(3, remaining))
        else:
            pattern, after = CELL["finished"], draw(0, 1.2 * spans.table)
            count = self.random.randint(1, min(3, remaining))
        if not attempt.wait(lambda: len(attempt.matching(pattern)) >= count):
            return False
        moment = attempt.elapsed() + after
        return attempt.wait(lambda: attempt.elapsed() >= moment)

    def shared_memory(self) -> list[str]:
        """Remove what the killed commands left in /dev/shm; return the names."""
        mine = re.compile(r"(?:joblib_memmapping_folder_|sem\.loky-|loky-)(" + "|".join(map(str, self.pids)) + r")[_-]")
        left = [
            path for path in Path("/dev/shm").glob("*") if mine.match(path.name) and path.stat().st_uid == os.getuid()
        ]
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return sorted(path.name for path in left)


@contextlib.contextmanager
def attended(attempt: Attempt) -> Iterator[Attempt]:
    """Leave no process behind, whatever happens here."""
    try:
        yield attempt
    finally:
        attempt.clear()
        attempt._file.close()


def log(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


# --- the verdict ---


def compare(expected: Result, results: list[Result]) -> tuple[list[str], list[str]]:
    """Compare finished sweeps with the one left alone; return the lines of the verdict and the differences."""
    lines, differences = [], []
    for kind, wanted in expected.parts.items():
        different = 0
        for number, found in enumerate(results, 1):
            extra, missing = found.parts[kind] - wanted, wanted - found.parts[kind]
            different += max(extra.total(), missing.total())
            for how, items in (("too much", extra), ("missing", missing)):
                where = Counter(item[0] if isinstance(item, tuple) else item for item in items.elements())
                for name, n in where.items():
                    first = next(item for item in items if name in (item, item[0]))
                    differences.append(f"sweep {number}: {kind}: {how}: {n} of {name}, the first: {first}")
        lines.append(f"{kind} compared: {wanted.total() * len(results)}, different: {different}")
    twice = [f"sweep {n}: {name}" for n, r in enumerate(results, 1) for name in repeated(r)]
    lines.append(f"runs: {sum(len(r.runs) for r in results)}, recorded twice: {len(twice)}")
    stray = [
        f"sweep {n}: stray file {name}" for n, r in enumerate(results, 1) for name in sorted(r.files - expected.files)
    ]
    lost = [
        f"sweep {n}: missing file {name}" for n, r in enumerate(results, 1) for name in sorted(expected.files - r.files)
    ]
    files = sum(len(r.files) for r in results)
    lines.append(f"kinds of files compared: {files}, stray: {len(stray)}, missing: {len(lost)}")
    return lines, twice + stray + lost + differences


def repeated(found: Result) -> list[str]:
    return [name for name, n in Counter(name for name, _, _ in found.runs).items() if n > 1]


def remarks(torture: Torture) -> list[str]:
    """What does not change a result but is not as it should be."""
    found = list(torture.remarks)
    for number, done in enumerate(torture.kills, 1):
        if done.left:
            found.append(
                f"kill {number} ({done.target}): still alive after {torture.options.orphans:.0f} s: {done.left}"
            )
        if done.target == "worker" and (done.traceback or len(done.said) != 1):
            how = "a traceback" if done.traceback else "no traceback"
            last = done.said[-1] if done.said else "nothing"
            found.append(f"kill {number} (worker): {len(done.said)} lines on stderr, {how}; the last: {last}")
    ordinary = {path.name for path in (torture.work / "tmp-reference").iterdir()}
    tmp = torture.work / "tmp"
    for path in sorted(tmp.rglob("*")) if tmp.is_dir() else []:
        if path.relative_to(tmp).parts[0] not in ordinary:
            found.append(f"left in the folder for temporary files: {path.relative_to(tmp)}")
    return found


def summary(torture: Torture, expected: Result, spans: Spans) -> tuple[str, bool]:
    """Return the Markdown summary, and whether all is well."""
    kills, options = torture.kills, torture.options
    text = [f"# {len(kills)} kills, seed {options.seed}, {options.launcher}, {torture.cells} cells", ""]
    text += [f"`{' '.join(['python', *torture.command[1:]])}`", ""]
    text += [
        f"Left alone: start-up {spans.startup:.1f} s, evaluation and pictures of a cell {spans.evaluation:.1f} s, "
        f"the last refresh of the table {spans.table:.1f} s{' (assumed)' if spans is HURRIED else ''}.",
        "",
        "| n | sweep | target | moment (s) | stage | exit code | workers lived on (s) |",
        "|--:|--:|---|--:|---|--:|--:|",
    ]
    for number, k in enumerate(kills, 1):
        lived = "" if k.lived is None else f"{k.lived:.1f}" + (", killed" if k.left else "")
        text.append(f"| {number} | {k.sweep} | {k.target} | {k.moment:.1f} | {k.stage} | {k.code} | {lived} |")
    lines, differences = compare(expected, torture.results)
    faults = list(torture.faults)
    if len(kills) < options.kills:
        faults.append(f"only {len(kills)} of {options.kills} kills")
    if not torture.results:
        faults.append("no sweep finished")
    ends = [k for k in kills if k.target == "worker"]
    zero = [k for k in ends if k.code == 0]  # right only if all was done, which the comparison then shows
    remarked = remarks(torture)
    text += ["", f"- sweeps finished with exit code 0: {len(torture.results)}, in {torture.starts - 1} starts"]
    text += [f"- {line}" for line in lines]
    text += [f"- ends after a worker's death: {len(ends)}, with exit code 0: {len(zero)}"]
    text += [f"- semaphores and empty folders of joblib left in /dev/shm, removed here: {len(torture.shared_memory())}"]
    for title, items in (("Faults", faults), ("Differences", differences), ("Remarks", remarked)):
        text += ["", f"{title}: {len(items)}", *(f"- {item}" for item in items[:60])]
    well = not faults and not differences and not (options.strict and remarked)
    text += ["", "All equal." if well else "NOT as it should be."]
    return "\n".join(text), well


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="draws the moments and the workers")
    parser.add_argument("--launcher", default="joblib", choices=("joblib", "cores", "basic"))
    parser.add_argument("--grid", default="full", choices=tuple(GRIDS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--orphans", type=float, default=20, help="seconds that workers may live without their parent")
    parser.add_argument("--strict", action="store_true", help="remarks count as failures")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in; it is kept")
    return parser.parse_args()


def main() -> int:
    """Run it all; return the exit code."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaving no process behind
    if not Path("/proc/self/stat").exists():
        raise SystemExit("kill.py looks for processes in /proc, which this system does not have")
    if options.keep and options.keep.exists() and any(options.keep.iterdir()):
        raise SystemExit(f"--keep={options.keep}: not empty")
    with contextlib.ExitStack() as stack:
        work = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-")))
        torture = Torture(options, work.resolve())
        with torture.reference() as attempt:
            if options.grid == "full":
                expected, spans = torture.left_alone(attempt), Spans.of(attempt, options.epochs)
                log(f"left alone: {attempt.elapsed():.0f} s, {spans}")
                torture.run(spans)
            else:  # in a hurry: both at once
                spans = HURRIED
                torture.run(spans)
                expected = torture.left_alone(attempt)
        text, well = summary(torture, expected, spans)
    print(text)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
