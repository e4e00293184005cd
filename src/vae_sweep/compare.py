"""The report of finished sweeps: ``python -m vae_sweep.compare sweep=<run id>[,<run id> ...]``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vae_sweep.api import find_sweep
from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path, terminal_width
from vae_sweep.config.options import option, run_command

if TYPE_CHECKING:
    from vae_sweep.comparison.evidence import Evidence


@dataclass
class Options:
    """Write report and slider page of finished sweeps; those of one sweep also go to its own run, for the MLflow UI."""

    sweep: str = option("id of a sweep, as it prints it at its end, or its beginning, or last; several with commas")
    out: str | None = option("folder of the report and its tables; null: outputs/compared/<ids>", None)
    uri: str | None = option("tracking store; null: as in training, seen from this folder", None)
    model: str | None = option(
        "own models' classes, with commas, such as my_vae.MyVAE, to show them in explore.html", None
    )
    dataset: str | None = option("likewise own data sources' classes", None)


def compare(options: Options, root: Path) -> tuple[Evidence, Path]:
    """Write the report of the sweeps; return what it is made of, and its folder.

    Raises:
        UserError: for a sweep that the store does not have, or a folder that cannot be written.
    """
    from vae_sweep.base import plugins
    from vae_sweep.datasets import Source
    from vae_sweep.models import VAE
    from vae_sweep.report import publish
    from vae_sweep.report.collect import gather
    from vae_sweep.sweeps import explore
    from vae_sweep.tracking.store import Store

    for key, given, base in (("model", options.model, VAE), ("dataset", options.dataset, Source)):
        for target in filter(None, (given or "").split(",")):
            plugins.find(target, base, key)  # imported: the page shows the models of modules that are
    store = Store.existing(options.uri, root, f"sweep={options.sweep}: no runs are stored here")
    sweeps = [find_sweep(store, given) for given in dict.fromkeys(filter(None, options.sweep.split(",")))]
    evidence = gather(store, list({sweep.run_id: sweep for sweep in sweeps}.values()))
    default = root / "outputs" / "compared" / "-".join(sweep.run_id[:8] for sweep in sweeps)[:200]
    folder = resolve_path(root, options.out, "out") if options.out else default
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = publish.files(evidence)
        page = explore.attempt(store, evidence, root)
        written |= {explore.NAME: page.html} if page else {}
        (folder / explore.NAME).unlink(missing_ok=True)  # an earlier one, where none can be made now
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror}); give another out=") from error
    if len(evidence.sweeps) == 1:
        with store.artifact(evidence.sweeps[0], explore.NAME) as earlier:
            if earlier and page and not page.complete:  # it may show more
                written.pop(explore.NAME)
        publish.record(store, evidence.sweeps[0], written)
    return evidence, folder


def main() -> None:
    """Entry point of ``python -m vae_sweep.compare``."""

    def work(options: Options) -> None:
        evidence, folder = compare(options, Path.cwd())
        from vae_sweep.report.publish import verdicts
        from vae_sweep.report.text import wrapped

        said = verdicts(evidence)
        said = wrapped(said, terminal_width()) if sys.stdout.isatty() else said
        pages = [path for name in ("report.html", "explore.html") if (path := folder / name).exists()]
        print("\n".join([*said, "", *map(str, pages)]))

    run_command("compare", Options, work)


if __name__ == "__main__":
    main()
