"""Every metric that a comparison can show: its name in words, unit, direction, and one line of explanation.

``python -m vae_sweep.metrics.catalogue`` prints the table of docs/metrics.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from vae_sweep.base.process import set_up

MARGIN = 0.5  # nats/image: a smaller difference in test loss does not matter


@dataclass(frozen=True)
class Metric:
    """A number that every run has, and how to read it."""

    key: str  # in the store and in tables, such as test/loss
    label: str  # in words, such as "test loss"
    unit: str  # "" for a pure number
    better: str  # "lower", "higher", or "" where neither is
    digits: int = 2  # after the point, in tables
    margin: float = 0.0  # differences smaller than this do not matter: in the unit, or a share where `relative`
    relative: bool = False  # the margin is a share of the mean of both models' means
    primary: bool = False  # one of those declared beforehand that carry the verdict


@dataclass(frozen=True)
class Entry:
    """A family of metrics: the pattern of their keys, how to read them, and what they mean."""

    pattern: str  # of the whole key; {0}, {1}, ... in label and text stand for its groups
    metric: Metric
    text: str


_NETWORK = r"((?:inception|efficientnet_lite0)(?:_\d+px)?)_(\d+k?)"
_PART = r"(|_reconstructions|_midpoints|_mixture|_floor)"
_PARTS = {
    "": "prior samples",
    "_reconstructions": "reconstructions",
    "_midpoints": "latent midpoints",
    "_mixture": "mixture samples",
    "_floor": "training images",
}
_metric = partial(Metric, "")  # its key depends on the run

ENTRIES = (
    Entry(
        "test/loss",
        _metric("test loss", "nats/image", "lower", 2, MARGIN),
        "recon + beta * kl, the trained loss, averaged over the test images",
    ),
    Entry(
        "test/recon",
        _metric("recon", "nats/image", "lower", 2),
        "squared error, summed over an image's values (averaged under objective.reduction=mean: not nats); with "
        "another objective.variance divided by twice that; with optimal and learned -ln p(x|z): docs/objective.md",
    ),
    Entry("test/kl", _metric("kl", "nats/image", "", 2), "KL(q(z|x) || N(0, I)) summed over latents: the rate"),
    Entry(
        "test/squared_error",
        _metric("squared error", "in [0, 1]^2", "lower", 2),
        "summed over an image's values, of evaluation.noise_draws posterior draws (1): the distortion, whatever the "
        "decoder's variance",
    ),
    Entry(
        "test/neg_elbo",
        _metric("-ELBO", "nats/image", "lower", 2),
        "squared error + kl: decoder variance 1/2, beta 1, without the constant (D/2) ln pi (Kingma & Welling 2014)",
    ),
    Entry(
        "test/neg_elbo_with_constant",
        _metric("-ELBO with constant", "nats/image", "lower", 2),
        "the same with (D/2) ln pi: a bound on -ln p(x) for values in [0, 1]",
    ),
    Entry(
        "test/bits_per_dim",
        _metric("bits/dim", "bits/value", "lower", 4),
        "-ELBO with constant / (D ln 2) + 8, for 8-bit values spread evenly over their bins",
    ),
    Entry(
        "test/optimal_sigma",
        _metric("sigma*", "in [0, 1]", "lower", 4),
        "sqrt(E[squared error] / D): the decoder's best standard deviation, found after training (Rybkin et al. 2021)",
    ),
    Entry(
        "test/neg_elbo_optimal_sigma",
        _metric("-ELBO at sigma*", "nats/image", "lower", 1),
        "(D/2)(ln(2 pi sigma*^2) + 1) + kl, the constant included (Rybkin et al. 2021)",
    ),
    Entry(
        "test/bits_per_dim_optimal_sigma",
        _metric("bits/dim at sigma*", "bits/value", "lower", 3),
        "-ELBO at sigma* / (D ln 2) + 8, for 8-bit values spread evenly over their bins",
    ),
    Entry(
        "test/bits_per_dim_gaussian",
        _metric("bits/dim, discretised Gaussian", "bits/value", "lower", 3),
        "-ELBO / (D ln 2) with a Gaussian likelihood of each of the 256 values, its one scale the best on validation "
        "images (Salimans et al. 2017): the bits/dim of the literature; compares across losses; what it adds to the "
        "density, and the scale, are those of 500 images of 3x32x32, of more where they are smaller",
    ),
    Entry(
        "test/bits_per_dim_logistic",
        _metric("bits/dim, discretised logistic", "bits/value", "lower", 3),
        "the same with a logistic distribution",
    ),
    Entry(
        r"test/scale_(gaussian|logistic)",
        _metric("scale of the discretised {0}", "in [0, 1]", "", 4),
        "the best on validation images",
    ),
    Entry(
        "test/learned_sigma",
        _metric("learned sigma", "in [0, 1]", "", 4),
        "the decoder's standard deviation under objective.variance=learned",
    ),
    Entry(
        r"test/iwae_(\d+)",
        _metric("IWAE, k = {0}", "nats/image", "lower", 2),
        "importance-weighted bound on -ln p(x) with {0} posterior draws, at the decoder's own variance (1/2 "
        "under objective.reduction=mean), with the constant where the loss has it (Burda et al. 2016): recon + kl of "
        "all test images less the mean gain on some",
    ),
    Entry(
        r"test/iwae_(\d+)_se",
        _metric("standard error of IWAE, k = {0}", "nats/image", "lower", 2),
        "of the gain: how well the part of the test images that was drawn stands for all",
    ),
    Entry(
        r"test/iwae_(\d+)_gain",
        _metric("-ELBO less IWAE, k = {0}", "nats/image", "", 2),
        "on the same draws of a fixed part of the test images; at least 0, and 0 where the posterior is exact",
    ),
    Entry(
        r"test/iwae_(\d+)_ess",
        _metric("effective samples of {0}", "", "higher", 1),
        "(sum w)^2 / sum w^2 of the importance weights, mean over images (Kong 1992): few means a loose bound",
    ),
    Entry(
        "test/active_units",
        _metric("active units", "latents", "", 1),
        "latents whose posterior mean has a variance above 0.01 over the test images (Burda et al. 2016)",
    ),
    Entry(
        "test/aggregate_mean_norm",
        _metric("|mean of q(z)|", "", "lower", 3),
        "length of the aggregate posterior's mean; 0 where it is the prior",
    ),
    Entry(
        "test/aggregate_variance",
        _metric("variance of q(z)", "", "", 3),
        "of the aggregate posterior, averaged over latents; 1 where it is the prior",
    ),
    Entry(
        "test/aggregate_kl",
        _metric("KL of q(z)'s moments", "nats", "lower", 3),
        "KL(N(m, S) || N(0, I)) of the aggregate posterior's mean and covariance; at most KL(q(z) || p(z)) (Hoffman & "
        "Johnson 2016)",
    ),
    Entry(
        "test/mixture_gain",
        _metric("gain of a mixture prior", "nats/image", "", 2),
        "E[ln q(z) - ln p(z)] on test images of a Gaussian mixture fitted to the training images' latents (Ghosh et "
        "al. 2020); above 0 where it describes them better than the prior",
    ),
    Entry(
        "test/mixture_components",
        _metric("its components", "", "", 0),
        "of the mixture: the number asked for, or one where that describes the validation images better",
    ),
    Entry(
        "test/psnr",
        _metric("PSNR", "dB", "higher", 2),
        "10 log10(1 / MSE) of decoded posterior means, the mean over all values of all test images",
    ),
    Entry(
        "test/ssim",
        _metric("SSIM", "", "higher", 3),
        "structural similarity of decoded posterior means (Wang et al. 2004; window 11, coarse at 32x32), on a fixed "
        "part of the test images",
    ),
    Entry(
        "test/probe_accuracy",
        _metric("linear probe", "% correct", "higher", 1),
        "test accuracy of a logistic regression on posterior means, trained on at most 10,000 training images (Alain & "
        "Bengio 2016)",
    ),
    Entry(
        "test/probe_accuracy_pca",
        _metric("probe on PCA scores", "% correct", "higher", 1),
        "the same probe on as many PCA scores as there are latents, each scaled to unit variance",
    ),
    Entry(
        "test/mig",
        _metric("MIG", "", "higher", 3),
        "mutual information gap (Chen et al. 2018): by how much the best latent tells more of a known factor than the "
        "second best, as a share of its entropy, mean over factors; with metrics.factors=true on dataset=shapes",
    ),
    Entry(
        "test/sap",
        _metric("SAP", "", "higher", 3),
        "separated attribute predictability (Kumar et al. 2018): the same gap of linear predictions",
    ),
    Entry(
        "test/dci_(disentanglement|completeness|informativeness)",
        _metric("DCI {0}", "", "higher", 3),
        "of gradient-boosted trees that predict the factors from the latents (Eastwood & Williams 2018)",
    ),
    Entry(
        f"test/fid_{_NETWORK}{_PART}",
        _metric("FID of {2} ({1})", "", "lower", 1),
        "Fréchet distance to the test images on Inception features (Heusel et al. 2017), {1} images a side; biased: "
        "compare only equal counts, and with that of training images",
    ),
    Entry(
        f"test/kid_{_NETWORK}{_PART}",
        _metric("KID of {2} ({1})", "", "lower", 4, 0.05, relative=True),
        "kernel distance to the test images on Inception features (Binkowski et al. 2018), {1} images a side; "
        "unbiased, so it may be negative",
    ),
    Entry(
        f"test/fd_{_NETWORK}{_PART}",
        _metric("FD of {2} ({1})", "", "lower", 1),
        "Fréchet distance to the test images on {0} features, not FID, {1} images a side; biased: compare only equal "
        "counts, and with that of training images",
    ),
    Entry(
        f"test/kd_{_NETWORK}{_PART}",
        _metric("KD of {2} ({1})", "", "lower", 3, 0.05, relative=True),
        "kernel distance (unbiased polynomial MMD, as KID) to the test images on {0} features, not KID, {1} images a "
        "side; may be negative",
    ),
    Entry(
        f"test/(?:kd|kid)_sd_{_NETWORK}{_PART}",
        _metric("its sd between subsets, {2}", "", "", 3),
        "standard deviation of the kernel distance between random subsets",
    ),
    Entry(
        f"test/precision_{_NETWORK}{_PART}",
        _metric("precision of {2}", "", "higher", 3),
        "share of images that lie among the test images' neighbourhoods (Kynkäänniemi et al. 2019; k = 5); read only "
        "beside recall: blurry images score high",
    ),
    Entry(
        f"test/recall_{_NETWORK}{_PART}",
        _metric("recall of {2}", "", "higher", 3),
        "share of test images that lie among the neighbourhoods of these images; read only beside precision",
    ),
    Entry(
        f"test/density_{_NETWORK}{_PART}",
        _metric("density of {2}", "", "higher", 3),
        "mean number of test neighbourhoods that hold an image, over k = 5 (Naeem et al. 2020); read only beside "
        "coverage: blurry images score above 1",
    ),
    Entry(
        f"test/coverage_{_NETWORK}{_PART}",
        _metric("coverage of {2}", "", "higher", 3),
        "share of test images whose neighbourhood holds at least one of these images; read only beside density",
    ),
    Entry(
        "cpu_time_s",
        _metric("CPU time", "s", "lower", 0),
        "of the whole run, in all its processes and threads, also while other runs wait",
    ),
    Entry(
        "peak_memory_mb",
        _metric("peak memory", "MB", "lower", 0),
        "the most that the run's process held, libraries and images included; not that of a GPU. Except on Linux, also "
        "that of earlier runs in the process",
    ),
)
BITS_PER_DIM = "test/bits_per_dim_gaussian"  # compares across losses
PRIMARY = ("test/loss", f"test/(?:kd|kid)_{_NETWORK}")  # declared beforehand; all others are descriptive


def described(keys: Iterable[str]) -> list[tuple[Metric, str]]:
    """Return the known ones of ``keys``, each with its explanation, primary ones first, then in the order above."""
    found, names = [], sorted(set(keys))
    for place, entry in enumerate(ENTRIES):
        for key in names:
            match = re.fullmatch(entry.pattern, key)
            if match:
                words = [_PARTS.get(group, group) for group in match.groups()]
                metric = replace(
                    entry.metric,
                    key=key,
                    label=entry.metric.label.format(*words),
                    primary=any(re.fullmatch(pattern, key) for pattern in PRIMARY),
                )
                found.append((not metric.primary, place, key, metric, entry.text.format(*words)))
    return [(metric, text) for _, _, _, metric, text in sorted(found, key=lambda item: item[:3])]


def markdown() -> str:
    """Return the table of all metrics."""
    lines = ["| key | name | unit | better | meaning |", "| --- | --- | --- | --- | --- |"]
    for entry in ENTRIES:
        choice = re.search(r"\(([a-z]+(?:\|[a-z]+)+)\)", entry.pattern)
        groups = (
            ("NETWORK", "N", "prior samples")
            if _NETWORK in entry.pattern
            else (" or ".join(choice[1].split("|")) if choice else "K",)
        )
        key = (
            entry.pattern.replace(_NETWORK, "NETWORK_N")
            .replace(_PART, "PART")
            .replace(r"(\d+)", "K")
            .replace("(?:", "(")
        )
        metric = entry.metric
        cells = (f"`{key}`", metric.label.format(*groups), metric.unit, metric.better, entry.text.format(*groups))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    set_up()
    print(markdown(), end="")
