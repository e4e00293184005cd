"""Whatever ends a sweep from outside: every run is closed, no process stays behind, the same command goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Run

from running import ENDLESS
from vae_sweep.base import signals
from vae_sweep.base.errors import StoreError
from vae_sweep.base.signals import Terminated, deferred_interrupts, interrupt
from vae_sweep.sweeps import execute
from vae_sweep.sweeps.context import Context
from vae_sweep.tracking.retry import RetryingClient
from vae_sweep.tracking.store import Store

GRID = ["-m", "model=fc,linear", "params=tiny", "experiment=smoke"]


def stored(root: Path) -> list[Run]:
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vae_sweep-smoke")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def session(leader: int) -> set[int]:
    """The living processes of a session; the command was started in one of its own."""
    alive = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(sid) == leader and state != "Z":
            alive.add(int(stat.parent.name))
    return alive


def wait_until_gone(leader: int, but: frozenset[int] = frozenset()) -> set[int]:
    until = time.monotonic() + 20
    while time.monotonic() < until and session(leader) - but:
        time.sleep(0.2)
    return session(leader) - but


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("launcher", "number", "whole_group"),
    [
        pytest.param("basic", signal.SIGINT, False, marks=pytest.mark.slow),
        pytest.param("joblib", signal.SIGINT, False, marks=pytest.mark.slow),
        pytest.param("joblib", signal.SIGINT, True, marks=pytest.mark.slow),  # Ctrl-C in a terminal
        pytest.param("joblib", signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param("joblib", signal.SIGTERM, True, marks=pytest.mark.slow),
        pytest.param("joblib", signal.SIGHUP, True, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_sweep_closes_its_runs_and_ends_its_processes(
    launcher: str, number: int, whole_group: bool, start, project: Path
) -> None:
    launch = [f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])]
    process = start(*GRID, *launch, *ENDLESS, cwd=project, until="epoch 3:")
    (os.killpg if whole_group else os.kill)(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    before, line, _ = output.partition("\nvae_sweep: interrupted; the same command continues\n")
    assert line
    assert "Traceback" not in before
    assert wait_until_gone(process.pid) == set()
    runs = stored(project)
    assert {run.info.status for run in runs} == {"KILLED"}, output
    (parent,) = [run for run in runs if run.data.tags["vae_sweep.role"] == "sweep"]
    assert "KILLED" in parent.data.tags["mlflow.note.content"]
    # What had trained for an epoch may go on from here; between two renames there is only the epoch before.
    assert {path.name for path in project.glob("outputs/state/*/*/state*.pt")} & {"state.pt", "state.previous.pt"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_when_the_first_process_is_killed(start, project: Path) -> None:
    process = start(*GRID, "hydra.launcher.n_jobs=2", *ENDLESS, cwd=project, until="epoch 3:")
    process.kill()  # -9, the first process alone
    assert wait_until_gone(process.pid) == set()
    again = start(*GRID, "hydra.launcher.n_jobs=2", *ENDLESS, cwd=project, until="continues after epoch")
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    runs = stored(project)
    assert len(runs) == 3  # the same sweep, the same runs
    assert {run.info.status for run in runs} == {"KILLED"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_worker_ends_the_sweep_with_one_clear_line(start, project: Path) -> None:
    """As the kernel does where memory runs out."""
    process = start(*GRID, "hydra.launcher.n_jobs=2", *ENDLESS, cwd=project, until="epoch 3:")
    (owner, *_) = project.glob("outputs/state/*/*/owner.json")
    os.kill(int(owner.read_text().partition('"pid": ')[2].rstrip("}")), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    before, line, _ = output.partition("\nvae_sweep: a worker process was killed, usually because memory")
    assert line
    assert "Traceback" not in before
    assert wait_until_gone(process.pid) == set()
    statuses = {run.data.tags["vae_sweep.role"]: run.info.status for run in stored(project)}
    assert statuses == {"sweep": "FAILED", "run": "KILLED"}


@pytest.fixture
def ours() -> Iterator[None]:
    """The signals go to our handler, as in a run."""
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def arrives(*numbers: signal.Signals) -> None:
    for number in numbers:
        signal.raise_signal(number)


class Client:
    """Whose calls are reached by signals half way."""

    def __init__(self, *numbers: signal.Signals, error: Exception | None = None) -> None:
        self.numbers, self.error, self.began, self.done = numbers, error, 0, 0

    def write(self) -> str:
        self.began += 1
        arrives(*self.numbers)
        if self.error:
            raise self.error
        self.done += 1
        return "written"


def retrying(client: Client, guard: Callable = deferred_interrupts, retry_for: float = 0.0) -> RetryingClient:
    return RetryingClient(client, "sqlite:///x", (OSError,), lambda error: True, retry_for, guard)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([signal.SIGINT], KeyboardInterrupt),
        ([signal.SIGTERM], Terminated),
        ([signal.SIGTERM, signal.SIGINT], Terminated),  # the first counts
        ([signal.SIGINT, signal.SIGTERM, signal.SIGTERM], KeyboardInterrupt),
    ],
)
def test_an_interrupt_waits_for_a_write_to_end(
    ours: None, numbers: list[signal.Signals], expected: type[BaseException]
) -> None:
    client = Client(*numbers)
    with pytest.raises(KeyboardInterrupt) as caught:
        retrying(client).write()
    assert caught.type is expected
    assert client.done == 1
    client.numbers = ()
    assert retrying(client).write() == "written"  # and is forgotten then


def test_an_interrupt_during_a_failing_write_ends_the_retries(ours: None) -> None:
    client = Client(signal.SIGINT, error=OSError("busy"))
    with pytest.raises(KeyboardInterrupt):
        retrying(client, retry_for=60).write()  # nor is a minute spent on trying again
    assert client.began == 1
    client.numbers = ()
    with pytest.raises(StoreError, match="busy"):
        retrying(client).write()


def test_a_second_interrupt_does_not_wait_for_the_write(ours: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SECOND_SIGNAL_AFTER", 0.0)
    client = Client(signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        retrying(client).write()
    assert (client.began, client.done) == (1, 0)
    client.numbers = ()
    assert retrying(client).write() == "written"  # nothing is left over


def test_a_request_to_a_server_is_interrupted_at_once(ours: None, tmp_path: Path) -> None:
    client = Client(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        retrying(client, nullcontext).write()
    assert client.done == 0
    assert Store("http://127.0.0.1:1", "0").client._guard is nullcontext
    assert Store(f"sqlite:///{tmp_path / 'mlflow.db'}", "0").client._guard is deferred_interrupts


def test_a_write_in_another_thread_does_not_delay_an_interrupt(ours: None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with deferred_interrupts():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert inside.wait(10)
        with pytest.raises(KeyboardInterrupt):
            arrives(signal.SIGINT)
    finally:
        leave.set()
        thread.join()


def test_a_second_signal_leaves_no_run_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the reason is written."""
    finished: list[str] = []

    def interrupted(tags: dict[str, str]) -> None:
        raise KeyboardInterrupt

    record = SimpleNamespace(
        run_id="a", client=SimpleNamespace(retry_for=9.0), set_tags=interrupted, finish=finished.append
    )
    run = SimpleNamespace(record=record, context=Context("/p", "sqlite:///x", "1"), name="fc-p1")
    monkeypatch.setattr(execute, "shorten_timeouts", lambda: None)
    with pytest.raises(KeyboardInterrupt), execute._closed_at_the_end(run, execute.Outcome()):  # type: ignore[arg-type]
        raise KeyboardInterrupt
    assert finished == ["KILLED"]


def test_a_run_interrupted_inside_the_database_can_be_closed(ours: None, project: Path) -> None:
    store = Store.open(f"sqlite:///{project / 'mlflow.db'}", project, "interrupted")
    run = store.start_run("run", {})
    statements: list[str] = []

    def met(connection: object, cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)
        if statement.startswith("INSERT INTO metrics"):
            arrives(signal.SIGINT)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", met)
    try:
        with pytest.raises(KeyboardInterrupt):
            run.log_metrics({"val/loss": 1.0}, step=1)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", met)
    assert any(statement.startswith("INSERT INTO metrics") for statement in statements)
    assert store.get(run.run_id).metrics == {"val/loss": 1.0}
    run.finish("KILLED")
    assert store.get(run.run_id).status == "KILLED"
