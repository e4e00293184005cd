"""Where a run belongs, and what the processes of a sweep share."""

from __future__ import annotations

from dataclasses import dataclass, field

from vae_sweep.comparison.rows import Cell
from vae_sweep.tracking.store import Store


@dataclass(frozen=True)
class Context:
    """Where a run belongs; made once in the first process and handed to every worker."""

    root: str  # absolute; the directory that the command was typed in
    uri: str  # absolute tracking URI, without its secret: this is pickled into files
    experiment_id: str
    parent_id: str | None = None  # the sweep's run
    sweep_key: str = "single"  # the sweep's identity
    project: str = ""  # id of the project folder, wherever it is mounted
    owner: dict[str, str | int] = field(default_factory=dict)  # host and pid of the first process
    fail_fast: bool = False  # stop the sweep's other cells when one fails
    anew_since: float | None = None  # seconds since 1970: resume=false, so runs that started before do not count
    anew: bool = False  # resume=false is asked for: the same command would train all again
    swept: tuple[str, ...] = ()  # override keys with several values
    cells: tuple[Cell, ...] = ()  # of the sweep, where they are known ahead
    code: str | None = None  # hash of what the first process trains with; a worker elsewhere may have another version
    retry_for: float = 0.0  # seconds that requests to a failing store are retried
    features: str = "none"  # network of distribution distances, the same for all runs of a sweep
    features_reason: str = ""  # why this one, or why none
    own_display: bool = False  # the first process shows what the runs do: their logs go to their files alone

    def store(self, retry: bool = True) -> Store:
        """Return the store that the runs write to."""
        return Store(self.uri, self.experiment_id, self.retry_for if retry else 0.0)
