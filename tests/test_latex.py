"""The table in LaTeX: complete, well formed, with nothing in it that a name could break."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import evidence_examples as examples
from vae_sweep.report import latex

POOR = examples.poor()


def check_latex(text: str) -> None:
    """Braces and environments balance, every row has as many columns as the table, nothing special is bare."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    depth = 0
    for found in re.findall(r"\\.|[{}]", body):
        depth += {"{": 1, "}": -1}.get(found, 0)
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"\\begin\{(\w+)\}", body) == re.findall(r"\\end\{(\w+)\}", body)[::-1]
    spec = re.search(r"\\begin\{tabular\}\{@\{\}(l+r*)@\{\}\}", body)
    assert spec
    start, end = body.index(r"\toprule"), body.index(r"\bottomrule")
    for line in body[start:end].splitlines():
        if line.endswith(r"\\"):
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == len(spec[1]), line
        bare = re.sub(r"\$[^$]*\$", "", re.sub(r"\\.", "", line))
        assert not re.search(r"[#%$_^~|<>\"]", bare), line
    assert r"\textbf" not in body
    body.encode("latin-1")  # plain enough for any LaTeX


def test_the_groups_and_the_reference_are_shown() -> None:
    full = examples.mixed()
    text = latex.table(full)
    check_latex(text)
    assert text.startswith("% needs \\usepackage{booktabs}")
    for metric in full.metrics:
        for group in full.groups[metric.key] if metric.primary else ():
            assert f"${group.mean:.{metric.digits}f} \\pm {group.sd:.{metric.digits}f}$" in text
    assert text.count("$76.13$") == 2
    assert text.count("$1.674$") == 2


def test_special_characters_are_written_out() -> None:
    said = r"\textless{}img src=x onerror=alert(1)\textgreater{}\&\textquotedbl{}'`\$\_\%\#\{\}\textasciitilde{}"
    assert latex.escape(examples.NASTY) == said + r"\textasciicircum{}\textbackslash{}"
    assert latex.escape("a\n\tb − 1 ± 2") == r"a b $-$ 1 $\pm$ 2"


@pytest.mark.parametrize("name", POOR)
def test_poor_evidence_makes_a_table(name: str) -> None:
    check_latex(latex.table(POOR[name]))


def test_hostile_names_stay_text() -> None:
    check_latex(latex.table(examples.hostile()[0]))


def test_a_mean_that_is_not_finite_is_shown_as_such() -> None:
    poor = POOR["one seed"]
    first, *others = poor.groups["test/loss"]
    lost = replace(first, values=(float("nan"),), mean=float("nan"))
    assert "$nan$" in latex.table(replace(poor, groups=poor.groups | {"test/loss": (lost, *others)}))
