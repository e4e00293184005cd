"""Where a run belongs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

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
    project: str = ""  # name of the project folder, wherever it is seen from
    owner: dict[str, str | int] = field(default_factory=dict)  # host and pid of the first process
    fail_fast: bool = False  # stop the sweep's other cells when one fails
    swept: tuple[str, ...] = ()  # override keys with several values
    cells: tuple[Cell, ...] = ()  # of the sweep, where they are known ahead
    code: str | None = None  # hash of what the first process trains with; a worker elsewhere may have another version
    retry_for: float = 0.0  # seconds that requests to a failing store are retried
    features: str = "none"  # network of distribution distances, the same for all runs of a sweep
    features_reason: str = ""  # why this one, or why none
    progress_bar: bool = False  # one run alone on a terminal

    def store(self, without_retries: bool = False) -> Store:
        """The store that the run writes to; a failing one is waited for, or not."""
        return Store(self.uri, self.experiment_id, 0.0 if without_retries else self.retry_for)


@dataclass(frozen=True)
class Job:
    """One run that Hydra asks for."""

    cfg: DictConfig
    context: Context
    name: str
    key: str  # identity of the run
    made_of: dict[str, str]  # its images and code, by name
    output_dir: Path  # Hydra's folder of the job
    folder: Path  # what it needs to continue
