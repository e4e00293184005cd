"""The report of finished sweeps: ``python -m vae_sweep.compare sweep=<run id>[,<run id> ...]``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path
from vae_sweep.config.arguments import options_of
from vae_sweep.config.messages import run_command
from vae_sweep.tracking.names import ROLE

if TYPE_CHECKING:
    from vae_sweep.comparison.evidence import Evidence
    from vae_sweep.tracking.store import Store, StoredRun

USAGE = """\
usage: python -m vae_sweep.compare sweep=<run id>[,<run id> ...] [key=value ...]

  sweep=...         ids of sweeps' own runs, as a sweep prints its own at the end; their beginnings are enough
  out=null          folder for report.html, statistics.json, comparison.csv|json|md|tex; null: outputs/compared/<ids>
  uri=null          tracking store; null: as in training, seen from this folder

One sweep's report is also written to its own run, where the MLflow UI shows it.
"""


@dataclass
class Options:
    """Which sweeps, and where the report goes."""

    sweep: str | None = None
    out: str | None = None
    uri: str | None = None


def parse(arguments: list[str]) -> Options:
    """Return the options of a command line.

    Raises:
        UserError: for a key that does not exist, or no sweep.
    """
    known = [f.name for f in fields(Options)]
    options = Options()
    for key, value in options_of(arguments, known):
        setattr(options, key, None if value in ("", "null") else value)
    if not options.sweep:
        raise UserError("sweep= is missing; give the id of a sweep's run, as the sweep printed it at its end")
    return options


def compare(options: Options, root: Path) -> tuple[Evidence, Path]:
    """Write the report of the sweeps; return what it is made of, and its folder.

    Raises:
        UserError: for a sweep that the store does not have, or a folder that cannot be written.
    """
    from vae_sweep.report import publish
    from vae_sweep.report.collect import gather
    from vae_sweep.tracking.store import Store

    assert options.sweep is not None
    store = Store.existing(options.uri, root, f"sweep={options.sweep}: no runs are stored here")
    sweeps = [_sweep(store, given) for given in dict.fromkeys(filter(None, options.sweep.split(",")))]
    evidence = gather(store, list({sweep.run_id: sweep for sweep in sweeps}.values()))
    default = root / "outputs" / "compared" / "-".join(sweep.run_id[:8] for sweep in sweeps)[:200]
    folder = resolve_path(root, options.out, "out") if options.out else default
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = publish.files(evidence)
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror}); give another out=") from error
    if len(evidence.sweeps) == 1:
        publish.record(store, evidence.sweeps[0], written)
    return evidence, folder


def _sweep(store: Store, given: str) -> StoredRun:
    found = store.get(given, "sweep")
    if found.tags.get(ROLE) != "sweep":
        hint = f"it belongs to sweep={found.parent_id}" if found.parent_id else "give the id that a sweep prints"
        raise UserError(f"sweep={given}: {found.name} is one run, not a sweep; {hint}")
    return found


def main() -> None:
    """Entry point of ``python -m vae_sweep.compare``."""

    def work(arguments: list[str]) -> None:
        evidence, folder = compare(parse(arguments), Path.cwd())
        from vae_sweep.report.publish import verdicts

        print("\n".join([*verdicts(evidence), "", str(folder / "report.html")]))

    run_command(USAGE, work)


if __name__ == "__main__":
    main()
