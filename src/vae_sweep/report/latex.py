"""The main table of a report as LaTeX, for a paper's supplement."""

from __future__ import annotations

import re

from vae_sweep.comparison.convergence import caveat
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.report import presentation as show
from vae_sweep.report.presentation import MINUS, number

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "–": "--",
    MINUS: "$-$",
    "β": r"$\beta$",
} | {character: "\\" + character for character in "&%$#_{}"}
_ESCAPED = re.compile("|".join(map(re.escape, _SPECIAL)))


def table(evidence: Evidence) -> str:
    """A `table` with booktabs rules: mean ± standard deviation over seeds of each cell, then the closed form.

    Nothing is bold: which model is better is a verdict's to say, not one number's.
    """
    metrics = show.main_columns(evidence)
    labels = [escape(show.label(metric, evidence.metrics)) for metric in metrics]
    names = ["Set", "Model", "Seeds", *labels, "Epochs", "Parameters"]
    units = ["", "", "", *(escape(show.unit(metric)) for metric in metrics), "mean (range)", ""]
    lines = []
    cells = show.cells(evidence)
    for dataset in show.datasets(evidence):
        title = escape(dataset or "unknown data")
        lines += [r"\midrule", rf"\multicolumn{{{len(names)}}}{{@{{}}l}}{{{title}}} \\", r"\addlinespace[2pt]"]
        for cell, rows in cells.items():
            if cell.dataset == dataset:
                groups = [show.group(evidence, metric.key, cell) for metric in metrics]
                values = [_number(g.mean, m.digits, g.sd) if g else "--" for g, m in zip(groups, metrics, strict=True)]
                first = [escape(word) for word in (cell.params or "–", cell.model, show.seeds(rows))]
                lines.append(_line([*first, *values, escape(show.epochs(rows)), escape(show.parameters(rows))]))
        for name, known in show.references(evidence, dataset, metrics):
            values = [_number(known.get(metric.key), metric.digits) for metric in metrics]
            title = rf"\multicolumn{{3}}{{@{{}}l}}{{\textit{{{escape(name)}}}}}"
            lines += [r"\addlinespace[2pt]", _line([title, *values, "", ""])]
    sets = escape("; ".join(show.hyperparameters(evidence)))
    ended = escape(caveat(row.training_state for row in evidence.rows if row.status == "FINISHED"))
    parts = [f"{escape(evidence.title)}.", ended, "Mean $\\pm$ standard deviation between seeds.", sets]
    caption = " ".join(filter(None, parts))
    units = [rf"{{\footnotesize {unit}}}" if unit else "" for unit in units]
    body = "\n".join([_line(names), _line(units), *lines])
    return rf"""% needs \usepackage{{booktabs}} and \usepackage[T1]{{fontenc}}
\begin{{table}}
\centering
\caption{{{caption}}}
\begin{{tabular}}{{@{{}}ll{"r" * (len(names) - 2)}@{{}}}}
\toprule
{body}
\bottomrule
\end{{tabular}}
\end{{table}}
"""


def escape(text: str) -> str:
    """The text on one line with every character that means something to LaTeX written out."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return _ESCAPED.sub(lambda found: _SPECIAL[found[0]], " ".join(plain.split()))


def _number(value: float | None, digits: int, sd: float | None = None) -> str:
    if value is None:
        return "--"
    spread = "" if sd is None else rf" \pm {number(sd, digits)}"
    return f"${number(value, digits)}{spread}$".replace(MINUS, "-")


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
