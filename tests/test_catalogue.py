"""The list of metrics: what runs record is in it, and the page about it says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from vae_sweep.metrics import catalogue

DOCS = Path(__file__).parents[1] / "docs" / "metrics.md"


def test_the_page_holds_the_list() -> None:
    assert catalogue.markdown() in DOCS.read_text(encoding="utf-8")


def test_two_metrics_are_declared_and_come_first() -> None:
    keys = [
        "test/psnr",
        "test/loss",
        "test/kd_efficientnet_lite0_96px_5k",
        "test/kd_efficientnet_lite0_96px_2k_mixture",
    ]
    metrics = [metric for metric, _ in catalogue.described([*keys, "val/loss", "test/unheard_of"])]
    assert [metric.key for metric in metrics] == [keys[1], keys[2], keys[0], keys[3]]
    assert [metric.primary for metric in metrics] == [True, True, False, False]
    assert metrics[1].label == "KD of prior samples (5k)"
    assert metrics[3].label == "KD of mixture samples (2k)"


@pytest.mark.parametrize("network", ["inception", "efficientnet_lite0_96px"])
def test_only_inceptions_distances_are_called_fid_and_kid(network: str) -> None:
    kinds = ["fid", "kid"] if network == "inception" else ["fd", "kd"]
    found = catalogue.described(
        f"test/{kind}_{network}_5k{part}" for kind in kinds for part in ("", "_midpoints", "_reconstructions", "_floor")
    )
    assert len(found) == 8
    for metric, text in found:
        assert metric.label.split()[0] == metric.key.split("/")[1].split("_")[0].upper()
        assert ("Inception" in text) == (network == "inception")
        assert "{" not in metric.label + text
