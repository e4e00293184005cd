"""Evidence as a report is made of it, with numbers that are drawn here: full, and as poor as it can get."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from vae_sweep.comparison.contrasts import Contrast, Group, SetDifference
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import LinearRow, Row
from vae_sweep.metrics.catalogue import Metric

NASTY = "<img src=x onerror=alert(1)>&\"'`$_%#{}~^\\"
DATASETS = ("cifar10-jpeg", "cifar10-jpeg, permuted pixels")
LONG = "conv_with_a_very_long_name_model.channels=[32,64,128,256]_lr=0.00001"
METRICS = (
    Metric("test/loss", "test loss", "nats/image", "lower", 2, 0.5, primary=True),
    Metric("kd/effnet", "KD of samples, EfficientNet-Lite0", "", "lower", 3, 0.05, relative=True, primary=True),
    Metric("test/recon", "test recon", "nats/image", "lower"),
    Metric("test/kl", "test kl", "nats/image", ""),
    Metric("test/psnr", "PSNR of test reconstructions", "dB", "higher"),
    Metric("test/active_units", "active units", "latents", "", 1),
    Metric("fd/effnet", "FD of samples", "", "lower", 1),
    Metric("fd/inception", "FD of samples", "", "lower", 1),
    Metric("prdc/coverage_effnet", "coverage", "", "higher", 3),
    Metric("prdc/precision_effnet", "precision", "", "higher", 3),
    Metric("prdc/density_effnet", "density", "", "higher", 3),
    Metric("prdc/recall_effnet", "recall", "", "higher", 3),
)
PLACE = {  # metric -> level of fc, of conv, sd between seeds
    "kd/effnet": (1.31, 1.27, 0.06),
    "test/recon": (61.0, 51.4, 0.3),
    "test/kl": (16.9, 22.4, 0.2),
    "test/psnr": (17.9, 18.8, 0.1),
    "test/active_units": (60.0, 88.0, 3.0),
    "fd/effnet": (910.0, 870.0, 12.0),
    "fd/inception": (160.2, 141.9, 2.0),
    "prdc/coverage_effnet": (0.41, 0.45, 0.01),
    "prdc/precision_effnet": (0.96, 0.95, 0.01),
    "prdc/density_effnet": (5.1, 4.8, 0.2),
    "prdc/recall_effnet": (0.011, 0.034, 0.002),
}
LINEAR = {"test/loss": 76.127, "test/recon": 52.85, "test/kl": 23.277, "kd/effnet": 1.674, "test/psnr": 18.64}


def full(
    datasets: Sequence[str] = DATASETS,
    models: Sequence[str] = ("fc", "conv"),
    sets: Sequence[str] = ("p1", "p2", "p3"),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    side: int = 32,
) -> Evidence:
    """Finished runs of every combination; the second data set takes conv's advantage away."""
    random = np.random.default_rng(0)
    rows, histories, samples, walks, spectra, pairs = [], {}, {}, {}, {}, {}
    real = pictures(np.random.default_rng(1), 16, side)
    for dataset, model, params, seed in itertools.product(datasets, models, sets, seeds):
        name = f"{model}-{params}-s{seed}" + (f" {dataset}" if len(datasets) > 1 else "")
        good = model != models[0] and dataset == datasets[0]
        harder = {"p1": 1.4, "p2": 0.0}.get(params, 0.6) * (1 if good else 3)
        values = {k: float(random.normal(b if good else a, sd)) for k, (a, b, sd) in PLACE.items()}
        values["test/recon"] += harder
        values["test/loss"] = values["test/recon"] + values["test/kl"]
        linear = LinearRow(
            dataset, 128, 1.0, "sum", 36, *(76.01, 52.73, 23.28, 76.53, 53.2, 23.33, 76.127, 52.85, 23.277)
        )
        epochs = int(random.integers(15, 27))
        known = {
            "n_parameters": 1_119_811 if model == "conv" else 3_511_040,
            "epochs": epochs,
            "best_epoch": epochs - 2,
        }
        known |= {"batch_size": 128 if params == "p2" else 64, "latent_dim": 256 if params == "p3" else 128}
        rows.append(
            Row(
                *(f"{len(rows):032x}", name, "FINISHED"),
                **{"dataset": dataset, "model": model, "params": params, "seed": seed, "lr": 0.0005, "beta": 1.0},
                **{
                    "reduction": "sum",
                    "val_loss": values["test/loss"] + 0.3,
                    "wall_time_s": 712.3,
                    "reference": linear,
                },
                **known,
                metrics=values,
            )
        )
        x = np.arange(1, epochs + 1) * 45_000.0
        histories[name] = (
            x,
            values["test/loss"] + 140 * np.exp(-np.arange(epochs) / 1.3) + 4 * np.exp(-np.arange(epochs) / 6),
        )
        samples[name] = pictures(random, 64, side)
        pairs[name] = np.stack([real, 255 - real], 1)
        walks[name] = pictures(random, 60, side).reshape(6, 10, 3, side, side)
        latents = known["latent_dim"]
        spectra[name] = np.sort(
            2.2 * np.exp(-np.arange(latents) / (9 if good else 6)) * random.lognormal(0, 0.1, latents)
        )[::-1]
    line = (0.5 * np.log(2 * 55 * np.arange(1, 129) ** -1.3)).clip(0)
    beta = np.geomspace(0.1, 10, 60)
    return replace(
        assemble(rows, datasets, models, sets, seeds, f"{' against '.join(models)} on {datasets[0]}"),
        histories=histories,
        samples=samples,
        reconstructions=pairs,
        linear_samples={dataset: pictures(np.random.default_rng(2), 16, side) for dataset in datasets},
        linear_reconstructions={dataset: pictures(np.random.default_rng(3), 16, side) for dataset in datasets},
        interpolations=walks,
        spectra=spectra,
        linear_spectra={d: {"128 latents": line, "256 latents": np.pad(line, (0, 128))} for d in datasets},
        linear_curves={d: (23.3 - 18 * np.log10(beta), 52.85 + 22 * np.log10(beta)) for d in datasets},
    )


def assemble(
    rows: Sequence[Row],
    datasets: Sequence[str],
    models: Sequence[str],
    sets: Sequence[str],
    seeds: Sequence[int],
    title: str,
) -> Evidence:
    """Groups and contrasts of the rows, worked out with numpy and scipy alone."""
    groups: dict[str, list[Group]] = {metric.key: [] for metric in METRICS}
    contrasts = []
    at = {(row.dataset, row.model, row.params, row.seed): row.metrics for row in rows if row.status == "FINISHED"}
    for metric, dataset in itertools.product(METRICS, datasets):
        for params, model in itertools.product(sets, models):
            found = [
                (s, at[dataset, model, params, s].get(metric.key)) for s in seeds if (dataset, model, params, s) in at
            ]
            having = [(s, v) for s, v in found if v is not None]
            if having:
                numbers = tuple(v for _, v in having)
                groups[metric.key].append(
                    Group(dataset, model, params, tuple(s for s, _ in having), numbers, *summary(numbers))
                )
        if len(models) > 1:
            contrasts += contrast(metric, dataset, models[0], models[1], groups[metric.key])
    return Evidence(
        title=title,
        sweeps=("05480f90aa",),
        rows=tuple(rows),
        metrics=METRICS,
        groups={key: tuple(found) for key, found in groups.items() if found},
        references={dataset: {"128": LINEAR, "256": dict(LINEAR)} for dataset in datasets},
        contrasts=tuple(sorted(contrasts, key=lambda c: (c.dataset, not c.metric.primary))),
        notes=("Feature network: EfficientNet-Lite0 at 96 px; Inception was not available.", "10,000 samples each."),
        facts={"torch": "2.9.0", "Noise of evaluation": "fixed, the same for all runs"},
    )


def summary(values: Sequence[float]) -> tuple[float, float | None, float | None, float | None]:
    """Mean, sd, t-interval."""
    if len(values) < 2:
        return float(np.mean(values)), None, None, None
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * sd / len(values) ** 0.5
    return mean, sd, mean - half, mean + half


def contrast(metric: Metric, dataset: str, a: str, b: str, groups: Sequence[Group]) -> list[Contrast]:
    found = []
    for params in dict.fromkeys(g.params for g in groups if g.dataset == dataset):
        at = {
            g.model: dict(zip(g.seeds, g.values, strict=True))
            for g in groups
            if (g.dataset, g.params) == (dataset, params)
        }
        both = [seed for seed in at.get(a, {}) if seed in at.get(b, {})]
        if both:
            values = tuple(at[a][s] - at[b][s] for s in both)
            found.append(SetDifference(params, tuple(both), values, *summary(values)))
    pairs = [v for s in found for v in s.values]
    if not pairs:
        return []
    several = len(pairs) > len(found)
    mean, sd, low, high = summary(pairs)
    margin = metric.margin * abs(mean) if metric.relative else metric.margin
    sign = {"lower": 1, "higher": -1}.get(metric.better, 1)
    verdict = "inconclusive"
    if several and low is not None and high is not None and (low > 0 or high < 0):
        verdict = "better" if sign * mean > 0 else "worse"
    share = float(np.mean([(sign * v > 0) + 0.5 * (v == 0) for v in pairs]))
    said = {"better": f"{b} is better than {a}", "worse": f"{b} is worse than {a}"}.get(
        verdict, "It stays open which is better"
    )
    sentence = (
        f"{said} in {metric.label} on {dataset}: {a} minus {b} is {mean:+.{metric.digits}f} {metric.unit}".strip()
    )
    least = 2.0 ** (1 - len(pairs))
    p = 0.31 if verdict == "inconclusive" else least
    holm = min(1.0, 2 * p) if metric.primary else None
    return [
        Contrast(
            *(dataset, metric, a, b, tuple(found), len(pairs), mean, sd),
            *((low, high) if several else (None, None)),
            *((low, high) if several else (None, None)),
            *(p, least, holm, None if not sd else mean / sd),
            *(share, max(share - 0.1, 0.0) if several else None, min(share + 0.1, 1.0) if several else None),
            *(margin, verdict, f"{sentence}."),
        )
    ]


def pictures(random: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Smooth uint8 pictures (n, 3, side, side)."""
    grid = np.linspace(0, 3, side)
    wave = random.normal(size=(n, 3, 4, 1, 1))
    x, y = grid[None, None, None, :], grid[None, None, :, None]
    found = wave[:, :, 0] * np.sin(x * wave[:, :, 1]) + wave[:, :, 2] * np.cos(y + wave[:, :, 3])
    return (127 + 60 * found).clip(0, 255).astype(np.uint8)


def nothing(**more: object) -> Evidence:
    """No run is known."""
    return replace(Evidence("Empty", (), (), (), {}, {}, ()), **more)  # type: ignore[arg-type]


def unfinished() -> Evidence:
    """Every run failed, was killed or has not started."""
    cell = {"dataset": "shapes", "params": "p1"}
    reason = f"RuntimeError: out of memory {NASTY}"
    rows = [
        Row("a" * 32, "fc-p1-s0", "FAILED", reason, model="fc", seed=0, **cell),
        Row("b" * 32, "fc-p1-s1", "KILLED", model="fc", seed=1, **cell),
        Row(None, "conv-p1-s0", "PENDING", model="conv", seed=0, **cell),
    ]
    return nothing(title="Nothing finished", rows=tuple(rows))


def mixed() -> Evidence:
    """Two datasets, one run of which failed, one was killed, one waits; a metric that one run alone lacks."""
    evidence = full()
    rows = list(evidence.rows)
    rows[3] = replace(rows[3], status="FAILED", reason="UserError: the disk is full", metrics={})
    rows[4] = replace(rows[4], status="KILLED", metrics={})
    rows[31] = replace(rows[31], metrics={k: v for k, v in rows[31].metrics.items() if k != "test/psnr"})
    rows.append(Row(None, "conv-p9-s0", "PENDING", dataset=rows[0].dataset, model="conv", params="p9", seed=0))
    sizes = DATASETS, ("fc", "conv"), ("p1", "p2", "p3"), range(5)
    built = assemble(rows, *sizes, "fc against conv")
    kinds = (
        "histories",
        "samples",
        "reconstructions",
        "linear_samples",
        "linear_reconstructions",
        "interpolations",
        "spectra",
        "linear_spectra",
        "linear_curves",
    )
    return replace(built, **{kind: getattr(evidence, kind) for kind in kinds})


def poor() -> dict[str, Evidence]:
    """As little as there can be, by name."""
    return {
        "no run": nothing(),
        "nothing finished": unfinished(),
        "one run": full(("shapes",), ("fc",), ("p1",), (0,), side=8),
        "one model": full(("shapes",), ("fc",), ("p1", "p2"), (0, 1), side=8),
        "one seed": full(("shapes",), ("fc", "conv"), ("p1", "p2", "p3"), (0,), side=8),
    }


def hostile() -> tuple[Evidence, str]:
    """Evidence in which every name and text is markup, and that text."""
    nasty = NASTY + "\x00\u202e\ud800"
    found = full((nasty,), (f"fc{nasty}", f"conv{nasty}"), (f"p1{nasty}",), (0, 1), side=8)
    row = Row(nasty, nasty, "FAILED", nasty, dataset=nasty, model=nasty, params=nasty, variant=nasty)
    metrics = tuple(replace(metric, label=metric.label + nasty, unit=nasty) for metric in found.metrics)
    contrasts = tuple(replace(c, sentence=nasty, metric=replace(c.metric, label=nasty)) for c in found.contrasts)
    words = {"title": nasty, "notes": (nasty,), "facts": {nasty: nasty}, "sweeps": (nasty,)}
    return replace(found, rows=(*found.rows, row), metrics=metrics, contrasts=contrasts, **words), nasty  # type: ignore[arg-type]
