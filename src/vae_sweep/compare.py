"""The report of finished sweeps: ``python -m vae_sweep.compare sweep=<run id>[,<run id> ...]``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vae_sweep.api import find_sweep
from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path
from vae_sweep.config.options import option, run_command

if TYPE_CHECKING:
    from vae_sweep.comparison.evidence import Evidence
    from vae_sweep.tracking.store import Store


@dataclass
class Options:
    """Write one report of finished sweeps; that of a single sweep also goes to its own run, for the MLflow UI."""

    sweep: str = option("id of a sweep, as it prints it at its end, or its beginning, or last; several with commas")
    out: str | None = option("folder of the report and its tables; null: outputs/compared/<ids>", None)
    uri: str | None = option("tracking store; null: as in training, seen from this folder", None)


def compare(options: Options, root: Path) -> tuple[Evidence, Path]:
    """Write the report of the sweeps; return what it is made of, and its folder.

    Raises:
        UserError: for a sweep that the store does not have, or a folder that cannot be written.
    """
    from vae_sweep.report.collect import gather
    from vae_sweep.tracking.store import Store

    store = Store.existing(options.uri, root, f"sweep={options.sweep}: no runs are stored here")
    sweeps = [find_sweep(store, given) for given in dict.fromkeys(filter(None, options.sweep.split(",")))]
    evidence = gather(store, list({sweep.run_id: sweep for sweep in sweeps}.values()))
    default = root / "outputs" / "compared" / "-".join(sweep.run_id[:8] for sweep in sweeps)[:200]
    folder = resolve_path(root, options.out, "out") if options.out else default
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = files(evidence)
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror}); give another out=") from error
    if len(evidence.sweeps) == 1:
        record(store, evidence.sweeps[0], written)
    return evidence, folder


def files(evidence: Evidence) -> dict[str, str]:
    """Return the report and the numbers behind it: name of a file -> its text."""
    from vae_sweep.comparison import rows
    from vae_sweep.report import latex, page, text
    from vae_sweep.report.collect import glossary

    return {
        "report.html": page.html(evidence, glossary(evidence)),
        "statistics.json": statistics_json(evidence),
        "comparison.csv": rows.csv(evidence.rows),
        "comparison.json": rows.json_text(evidence.rows),
        "comparison.md": text.markdown(evidence.rows),
        "comparison.tex": latex.table(evidence),
    }


def record(store: Store, sweep_id: str, written: Mapping[str, str]) -> None:
    """Write the report of one sweep to its own run; the table itself is kept there by the sweep."""
    for name in ("report.html", "statistics.json", "comparison.tex"):
        store.record(sweep_id).log_text(written[name], name)


def statistics_json(evidence: Evidence) -> str:
    """Return groups, references and contrasts as JSON."""
    groups = [asdict(group) | {"metric": key} for key, found in evidence.groups.items() for group in found]
    content = {
        "title": evidence.title,
        "sweeps": evidence.sweeps,
        "metrics": [asdict(metric) for metric in evidence.metrics],
        "groups": groups,
        "references": evidence.references,
        "contrasts": [asdict(contrast) for contrast in evidence.contrasts],
        "controls": evidence.controls,
        "notes": evidence.notes,
        "facts": evidence.facts,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def verdicts(evidence: Evidence) -> str:
    """Return the sentences of the declared metrics, a line each, and what is missing for one."""
    found = [contrast.sentence for contrast in evidence.contrasts if contrast.metric.primary]
    found += evidence.controls
    return "\n".join(found or ["No two models share a finished cell: there is nothing to compare yet."])


def main() -> None:
    """Entry point of ``python -m vae_sweep.compare``."""

    def work(options: Options) -> None:
        evidence, folder = compare(options, Path.cwd())
        print(f"{verdicts(evidence)}\n\n{folder / 'report.html'}")

    run_command("compare", Options, work)


if __name__ == "__main__":
    main()
