"""The tables of evidence.md and its figures, from what `compare` has written:

    python -m vae_sweep.compare sweep=<first>,<second> out=compared
    python docs/evidence.py compared >tables.md

The figures are those of the report, with the names in FIGURES, in docs/evidence.
"""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "evidence"
LOSSES = {
    "test/loss": (2, "test loss, nats/image (lower)"),
    "test/kl": (2, "kl (neither)"),
    "test/iwae_100": (2, "IWAE, k = 100 (lower)"),
    "test/bits_per_dim_gaussian": (3, "bits/dim, discretised Gaussian (lower)"),
    "test/active_units": (0, "active units (neither)"),
    "test/psnr": (2, "PSNR, dB (higher)"),
    "test/ssim": (3, "SSIM (higher)"),
    "test/probe_accuracy": (1, "linear probe, % (higher)"),
}
NETWORK = "efficientnet_lite0_96px"
DISTANCES = {
    f"test/kd_{NETWORK}_5k": (3, "KD of prior samples, 5k (lower)"),
    f"test/fd_{NETWORK}_5k": (0, "FD (lower)"),
    f"test/precision_{NETWORK}_5k": (3, "precision (higher)"),
    f"test/recall_{NETWORK}_5k": (3, "recall (higher)"),
    f"test/density_{NETWORK}_5k": (2, "density (higher)"),
    f"test/coverage_{NETWORK}_5k": (3, "coverage (higher)"),
    f"test/kd_{NETWORK}_2k_reconstructions": (3, "KD of reconstructions, 2k (lower)"),
    f"test/kd_{NETWORK}_2k_mixture": (3, "KD of mixture samples, 2k (lower)"),
}
FIGURES = {  # beginning of a figure's description in the report -> its file
    "Paired differences fc minus conv in nats": "paired-loss",
    "Paired differences fc minus conv in lower": "paired-kd",
    "test loss of every seed": "seeds-loss",
    "KD of prior samples (5k) of every seed": "seeds-kd",
    "Curves of the validation loss": "validation",
    "KL per latent": "kl-spectra",
    "Means of squared error and kl": "rate-distortion",
    **{
        f"samples from the prior of {model}, p2": f"samples-{model}-p2"
        for model in ("fc", "fc_skip", "fc_res", "conv", "conv_res")
    },
}


def main() -> None:
    """Print the tables and write the figures."""
    folder = Path(sys.argv[1])
    found = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    found["contrasts"] = [contrast for contrast in found["contrasts"] if contrast["metric"]["primary"]]
    print("## Verdicts\n")
    print("\n".join(f"- {contrast['sentence']}" for contrast in found["contrasts"] if contrast["planned"]), "\n")
    for title, columns in (("Losses and latents", LOSSES), ("Distances to the test images", DISTANCES)):
        print(f"## {title}\n")
        table(["Set", "Model", "Seeds", *(name for _, name in columns.values())], cells(found, columns))
    print("## Paired differences\n")
    table(["Metric", "Pair", "Set", "Mean", "sd", "95 % interval", "Pairs"], differences(found))
    for text, picture in pictures((folder / "report.html").read_text(encoding="utf-8")):
        name = next((name for start, name in FIGURES.items() if text.startswith(start)), None)
        if name:
            (HERE / f"{name}.png").write_bytes(picture)


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    print("\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]), "\n")


def cells(found: dict[str, Any], columns: dict[str, tuple[int, str]]) -> list[list[str]]:
    """A row for each cell, mean ± standard deviation between seeds, and one for each closed form."""
    groups = {(group["params"], group["model"], group["metric"]): group for group in found["groups"]}
    rows = []
    for params, model in sorted({key[:2] for key in groups}):
        known = [groups.get((params, model, key)) for key in columns]
        seeds = str(len(groups[params, model, "test/loss"]["seeds"]))
        texts = [
            f"{group['mean']:.{digits}f}" + (f" ± {group['sd']:.{digits}f}" if group["sd"] is not None else "")
            if group
            else ""
            for group, (digits, _) in zip(known, columns.values(), strict=True)
        ]
        rows.append([params, model, seeds, *texts])
    for forms in dict(found["references"]).values():
        for latents, values in forms.items():
            texts = [f"*{values[key]:.{digits}f}*" if key in values else "" for key, (digits, _) in columns.items()]
            rows.append(["", f"*linear (closed form), {latents} latents*", "", *texts])
    return rows


def differences(found: dict[str, Any]) -> list[list[str]]:
    """A row for each set of each pair of models, and one for all sets."""
    rows = []
    for contrast in found["contrasts"]:
        metric, sets = contrast["metric"], contrast["sets"]
        whole = [{**contrast, "params": "all", "values": [v for part in sets for v in part["values"]]}]
        for part in [*sets, *(whole if len(sets) > 1 else [])]:
            digits, known = metric["digits"], part["low"] is not None
            interval = f"[{part['low']:+.{digits}f}, {part['high']:+.{digits}f}]" if known else ""
            sd = f"{part['sd']:.{digits}f}" if part["sd"] is not None else ""
            pair = f"{contrast['a']} - {contrast['b']}"
            mean = f"{part['mean']:+.{digits}f}"
            rows.append([metric["label"], pair, part["params"], mean, sd, interval, str(len(part["values"]))])
    return rows


def pictures(report: str) -> list[tuple[str, bytes]]:
    """The figures of a report: the description and the PNG of each."""
    tags = re.findall(r"<img[^>]*>", report)
    read = [(re.search(r'alt="([^"]*)"', tag), re.search(r'src="data:image/png;base64,([^"]+)"', tag)) for tag in tags]
    return [(html.unescape(alt[1]), base64.b64decode(data[1])) for alt, data in read if alt and data]


if __name__ == "__main__":
    main()
