"""A dataset in a few lines: for the log, the record of a run and the report."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from vae_sweep.base.errors import escaped
from vae_sweep.datasets.base import LEFT_OUT, MAX_FACT, NOTE, ORIGINS, ImageDataset

log = logging.getLogger(__name__)

NAMED = 8  # classes, or reasons, in one line

_announced: set[Path] = set()  # prepared arrays that this process has logged


def lines(dataset: ImageDataset) -> list[str]:
    """Return source, splits with their counts, classes and left out files, a line each."""
    facts = dataset.facts
    origins = facts.get(ORIGINS, {})
    splits = [
        f"{len(part):,} {split}" + (f" ({origins[split]})" if split in origins else "")
        for split, part in dataset.splits.items()
    ]
    limit = f"; at most {facts[MAX_FACT]:,} of each (dataset.max_images)" if MAX_FACT in facts else ""
    classes = facts.get("classes", [])
    left_out = sorted(facts.get(LEFT_OUT, {}).items(), key=lambda item: -item[1])
    shape = "x".join(map(str, dataset.image_shape))
    found = [
        f"source: {facts.get('source', dataset.name)}; images of {shape}",
        f"splits: {', '.join(splits)}{limit}",
        f"classes: {len(classes)} ({_short(classes)})" if classes else "classes: none",
        f"left out: {_short([f'{n:,} ({reason})' for reason, n in left_out])}" if left_out else "left out: nothing",
        *([f"note: {facts[NOTE]}"] if NOTE in facts else []),
    ]
    return [escaped(line) for line in found]


def record(dataset: ImageDataset) -> str:
    """The lines and the facts that they are made of, as JSON."""
    known = {
        "name": dataset.name,
        "lines": lines(dataset),
        "digest": dataset.digest,
        "image_shape": dataset.image_shape,
        "images": {split: len(part) for split, part in dataset.splits.items()},
        "facts": dataset.facts,
    }
    return json.dumps(known, indent=1)


def announce(dataset: ImageDataset) -> None:
    """Log the lines, once per process."""
    if dataset.cache_dir not in _announced:
        _announced.add(dataset.cache_dir)
        for line in lines(dataset):
            log.info("%s: %s", dataset.name, line)


def _short(parts: list[str]) -> str:
    more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    return ", ".join(parts[:NAMED]) + more
