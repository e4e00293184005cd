"""The end of a finished sweep is kept; where nothing has changed, the same command shows it again, and does no more.

It needs no MLflow, and PyTorch only to see which feature network ``auto`` stands for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import vae_sweep
from vae_sweep.base.files import atomic_write
from vae_sweep.base.process import nobody_reads
from vae_sweep.base.sources import own_sources
from vae_sweep.base.system import resolve_path, terminal_width
from vae_sweep.comparison.identity import parts, run_key
from vae_sweep.comparison.rows import LinearRow, Row
from vae_sweep.config.settings import settings_of
from vae_sweep.datasets import prepared_identity
from vae_sweep.sweeps.folders import folder_of
from vae_sweep.sweeps.setup import choose_features
from vae_sweep.sweeps.source import source
from vae_sweep.tracking.unchanged import digest_of_runs
from vae_sweep.tracking.uris import store_uri, ui_command

log = logging.getLogger(__name__)

HOW_SHOWN = ("progress", "resume", "fail_fast")  # keys that the end of a sweep does not depend on


@dataclass(frozen=True)
class Ending:
    """What a sweep says when it ends."""

    sweep_id: str
    rows: list[Row]
    remarks: list[str]  # paragraphs below the table
    status: str

    def show(self, uri: str, root: Path) -> None:
        """Print it, as wide as the terminal."""
        from vae_sweep.report import text

        width = terminal_width()
        print(f"\n{text.text(self.rows, width=width, bold=sys.stdout.isatty())}")
        print("\n\n".join("\n".join(text.wrapped(part.splitlines(), width)) for part in self.remarks if part) + "\n")
        print(f"Sweep {self.sweep_id}: {self.status}. Its runs and their figures:")
        print(f"  {ui_command(uri, root)}", flush=True)


def place_of(cells: Sequence[DictConfig], root: Path) -> Path:
    """Return where the end of the sweep of these configurations is kept, for this version of vae_sweep."""
    plain: list[Any] = [OmegaConf.to_container(cfg, resolve=True) for cfg in cells]
    asked = [{key: value for key, value in cell.items() if key not in HOW_SHOWN} for cell in plain]
    package = Path(vae_sweep.__file__).parent
    code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(package.rglob("*.*")) if _is_code(path)]
    known = json.dumps([asked, code, store_uri(cells[0].tracking.uri, root) if cells else ""], default=str)
    return folder_of(root, "finished") / f"{hashlib.sha256(known.encode()).hexdigest()[:16]}.json"


def _is_code(path: Path) -> bool:
    return path.suffix in (".py", ".jinja", ".js", ".css")


def keep(place: Path, ending: Ending, uri: str, features: str, artifacts: Path) -> None:
    """Keep the end of a sweep whose runs need nothing; ``artifacts``: the folder of the sweep's own."""
    state = digest_of_runs(uri, _ids(ending))
    if state is None:
        return
    there = sorted(str(path) for path in artifacts.rglob("*") if path.is_file())
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(place) as file:
        kept = {"store": state, "features": features, "artifacts": there, "ending": asdict(ending)}
        file.write_text(json.dumps(kept), encoding="utf-8")


def shown_again(place: Path, config: DictConfig, cells: Sequence[DictConfig], root: Path) -> bool:
    """Show the end that is kept at ``place``; return False, and show nothing, where anything may have changed.

    Raises:
        UserError: where the images of a cell are missing, or the store has no valid address.
    """
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        ending = Ending(**kept["ending"] | {"rows": [_row(row) for row in kept["ending"]["rows"]]})
    except (OSError, ValueError, KeyError, TypeError):
        return False
    uri = store_uri(config.tracking.uri, root)
    unchanged = (
        _keys(cells, root) == {row.key for row in ending.rows}
        and kept["store"] == digest_of_runs(uri, _ids(ending))
        and all(Path(path).is_file() for path in kept["artifacts"])
        # None is looked for without PyTorch; what `auto` finds may have changed.
        and (config.metrics.features == "none" or kept["features"] == choose_features(config, root)[0])
    )
    if not unchanged:
        return False
    try:
        if config.progress == "log":
            for row in ending.rows:
                log.info("%s is already finished, as run %s; resume=false trains it again", row.name, row.run_id)
        else:
            print(f"All {len(ending.rows)} cells are already finished; resume=false trains them again.")
        ending.show(uri, root)
    except BrokenPipeError:
        nobody_reads()
    return True


def _ids(ending: Ending) -> list[str]:
    return [ending.sweep_id, *(row.run_id or "" for row in ending.rows)]


def _row(kept: Mapping[str, Any]) -> Row:
    return Row(**{**kept, "reference": kept["reference"] and LinearRow(**kept["reference"])})


def _keys(cells: Sequence[DictConfig], root: Path) -> set[str | None]:
    """The identities of the cells' runs now; None for those whose images are not prepared."""
    known: dict[str, tuple[str, str] | None] = {}
    found: set[str | None] = set()
    for cfg in cells:
        data = str(OmegaConf.to_container(cfg.dataset))
        if data not in known:
            cache = resolve_path(root, cfg.paths.data, "paths.data") / "cache"
            known[data] = prepared_identity(source(cfg.dataset, root), cache)
        if images := known[data]:
            made_of = parts(images[0], own_sources(cfg.model, cfg.dataset), images[1])
        found.add(run_key(settings_of(cfg), made_of) if images else None)
    return found
