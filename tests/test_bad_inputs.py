"""Input that cannot be used: what each gets. All errors are bdtr's own, of one line, before any sampling."""

from __future__ import annotations

import datetime
import decimal
import fractions
import re
import time

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.reports.notebooks import read_parameters
from bdtr.reports.starter import starter_notebook
from bdtr.results.errors import BdtrError
from bdtr.stages import sampling
from bdtr.trial.condition import Condition
from bdtr.trial.formula import Formula
from bdtr.trial.priors import prior_from_text
from bdtr.trial.protocol import protocol_from_text, read
from bdtr.trial.rules import read_rule

N = 96
RNG = np.random.default_rng(5)
FRAME = pd.DataFrame(
    {
        "id": [f"u{i}" for i in range(N)],
        "site": [f"s{i % 6}" for i in range(N)],
        "klass": [f"k{i % 12}" for i in range(N)],
        "x": RNG.normal(size=N),
        "w": RNG.uniform(1, 2, N),
        "a1": RNG.integers(0, 2, N),
        "a2": RNG.integers(0, 2, N),
        "r": RNG.normal(size=N),
        "g": RNG.choice(["low", "mid", "high"], N),
    }
)
FRAME["y"] = FRAME.x + FRAME.a1 + RNG.normal(size=N)
AGES = RNG.integers(18, 66, N)
DAY = datetime.date(2020, 1, 1)
HOW = {"sampler": "direct", "draws": 250, "propagated": 500, "random_seed": 1, "progress": False}


def trial(formula="x + a1", more=None, **stage):
    """Of one stage, or of two where there is more of the second."""
    trial_words = {
        k: stage.pop(k)
        for k in ("outcome", "site", "unit", "family", "higher_is_better")
        if k in stage
    }
    actions = stage.pop("actions", [0, 1])
    stages = [bdtr.Stage("a1", actions=actions, formula=formula, **stage)]
    if more is not None:
        stages.append(bdtr.Stage("a2", **{"actions": [0, 1], "formula": "x + a1 + a2", **more}))
    return bdtr.Trial(stages, **{"outcome": "y", **trial_words})


def fit(data=FRAME, how=None, **words):
    return bdtr.fit(trial(**words), data, **{**HOW, **(how or {})})


def column(values):
    return FRAME.assign(x=values)


def objects(values):
    return column(pd.Series(list(values), dtype=object))


def mixed(every, value):
    return column([value if i % every == 0 else str(v) for i, v in enumerate(AGES)])


DATA = {
    "ages as text": (lambda: column(AGES.astype(str)), "'x' holds numbers kept as text.*to_numeric"),
    "two numbers as text": (lambda: column((AGES > 40).astype(int).astype(str)), "numbers kept as text.*category"),
    "text and a dot": (lambda: mixed(40, "."), r"'\.' in 3 rows, a code for a missing value.*coerce"),
    "text and N/A": (lambda: mixed(40, "N/A"), "'N/A' in 3 rows, a code for a missing value"),
    "text and blanks": (lambda: mixed(40, " "), "a code for a missing value"),
    "text and dashes": (lambda: mixed(40, "-"), "a code for a missing value"),
    "text and a word": (lambda: mixed(40, "refused"), "numbers kept as text.*'refused' in 3 rows"),
    "numbers and a dot": (lambda: objects("." if i % 40 == 0 else v for i, v in enumerate(AGES)), "a code for a missing"),
    "decimal commas": (lambda: column([f"{v / 7:.2f}".replace(".", ",") for v in AGES]), "numbers kept as text"),
    "thousands": (lambda: column([f"{v * 1000:,}" for v in AGES]), "numbers kept as text"),
    "percent": (lambda: column([f"{v}%" for v in AGES]), "numbers kept as text"),
    "currency": (lambda: column([f"£{v}" for v in AGES]), "numbers kept as text"),
    "exponents": (lambda: column([f"{v}e2" for v in AGES]), "numbers kept as text"),
    "numbers with a unit": (lambda: column([f"{v} kg" for v in AGES]), "numbers kept as text"),
    "numbers in brackets": (lambda: column([f"({v})" for v in AGES]), "numbers kept as text"),
    "numbers of a typographer": (lambda: column([f"\u2212{v}" for v in AGES]), "numbers kept as text"),
    "thousands with blanks": (lambda: column([f"{v}\u00a0000" for v in AGES]), "numbers kept as text"),
    "durations as text": (lambda: column([f"{v} days" for v in AGES]), "kept as text"),
    "numpy durations": (lambda: objects(np.arange(N).astype("timedelta64[D]")), "holds durations"),
    "months as text": (lambda: column([f"{v % 28 + 1} Jan 2020" for v in AGES]), "dates kept as text"),
    "weeks as text": (lambda: column([f"2020-W{v}" for v in AGES]), "dates kept as text"),
    "afternoons as text": (lambda: column([f"1:{v} PM" for v in AGES]), "dates kept as text"),
    "one label": (lambda: column(["a"] * N), "one label for all units"),
    "a number too large": (lambda: objects([10**400] * N), "too large"),
    "Arrow, two columns of a name": (lambda: arrow_twice(), "data: "),
    "dates as text": (lambda: column([f"2020-01-{v % 28 + 1:02}" for v in AGES]), "dates kept as text.*days"),
    "dates of Britain": (lambda: column([f"{v % 28 + 1}/2/2020" for v in AGES]), "dates kept as text"),
    "times as text": (lambda: column([f"12:{v % 60:02}" for v in AGES]), "dates kept as text"),
    "Decimals": (lambda: objects(decimal.Decimal(int(v)) for v in AGES), r"Decimals.*astype\(float\)"),
    "fractions": (lambda: objects(fractions.Fraction(int(v), 3) for v in AGES), "Decimals or fractions"),
    "Arrow decimals": (lambda: arrow_decimals(), "Decimals"),
    "dates": (lambda: objects(DAY + datetime.timedelta(days=int(v)) for v in AGES), "holds dates.*to_datetime"),
    "datetimes": (lambda: column(pd.Timestamp("2020-01-01") + pd.to_timedelta(AGES, "D")), "holds dates"),
    "zoned": (lambda: column(pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(AGES, "D")), "holds dates"),
    "durations": (lambda: column(pd.to_timedelta(AGES, "D")), "holds durations.*Timedelta"),
    "durations as objects": (lambda: objects(datetime.timedelta(days=int(v)) for v in AGES), "holds durations"),
    "periods": (lambda: column(pd.PeriodIndex([pd.Period("2020", "D") + int(v) for v in AGES])), "holds periods"),
    "times of day": (lambda: objects(datetime.time(int(v) % 24) for v in AGES), "times of day"),
    "complex": (lambda: column(AGES + 1j), "complex numbers"),
    "complex objects": (lambda: objects(complex(v) for v in AGES), "complex numbers"),
    "intervals": (lambda: column(pd.cut(AGES, 4).astype("interval")), "intervals.*category"),
    "bytes": (lambda: objects(b"a" if v > 40 else b"b" for v in AGES), r"bytes.*decode"),
    "lists": (lambda: objects([v] for v in AGES), "lists or other collections"),
    "arrays": (lambda: objects(np.ones(2) for _ in AGES), "lists or other collections"),
    "objects": (lambda: objects(object() for _ in AGES), "objects of builtins.object"),
    "a code among labels": (lambda: column(np.where(AGES > 60, ".", "label")), "stands for a missing value"),
    "a blank among labels": (lambda: column(np.where(AGES > 60, "", "label")), "stands for a missing value"),
    "infinite": (lambda: column(np.where(AGES > 60, np.inf, 1.0)), "infinite"),
    "a dict": (lambda: FRAME.to_dict(), "got dict"),
    "a list": (lambda: [1, 2], "got list"),
    "an array": (lambda: FRAME.to_numpy(), "got numpy.ndarray"),
    "a series": (lambda: FRAME["x"], "got pandas.*Series"),
    "nothing": (lambda: None, "got NoneType"),
    "lazy": (lambda: __import__("polars").from_pandas(FRAME).lazy(), r"lazy.*collect\(\)"),
    "Polars dates": (lambda: polars_dates(), "holds dates"),
    "no rows": (lambda: FRAME.head(0), "no rows"),
    "no columns": (lambda: pd.DataFrame(), "no rows"),
    "two columns of a name": (lambda: pd.concat([FRAME, FRAME["x"]], axis=1), "appear twice"),
    "column absent": (lambda: FRAME.drop(columns="x"), "'x', which the data do not have"),
    "outcome absent": (lambda: FRAME.drop(columns="y"), "the columns 'y', which are absent"),
    "outcome of text": (lambda: FRAME.assign(y="a"), "'y' must hold numbers"),
    "outcome of numbers as text": (lambda: FRAME.assign(y=AGES.astype(str)), "'y' holds numbers kept as text"),
    "outcome of dates": (lambda: FRAME.assign(y=pd.Timestamp("2020-01-01")), "'y' holds dates"),
    "outcome constant": (lambda: FRAME.assign(y=1.0), "does not vary"),
    "outcome all missing": (lambda: FRAME.assign(y=np.nan), "missing"),
    "unknown action": (lambda: FRAME.assign(a1=2), "'2'.*known are '0', '1'"),
    "one action": (lambda: FRAME.assign(a1=1), "only one action is observed"),
    "missing values": (lambda: column(np.where(AGES > 60, np.nan, 1.0 * AGES)), "missing.*exclude"),
}  # fmt: skip


def arrow_twice():
    import pyarrow as pa

    return pa.Table.from_arrays([pa.array([1.0, 2.0])] * 2, names=["x", "x"])


def arrow_decimals():
    import pyarrow as pa

    kind = pd.ArrowDtype(pa.decimal128(10, 2))
    return column(pd.array([decimal.Decimal(int(v)) for v in AGES], dtype=kind))


def polars_dates():
    import polars as pl

    return pl.from_pandas(FRAME).with_columns(x=pl.lit(DAY))


SITES = {"formula": "x + a1 + (1 | site)", "site": "site"}
ROLES = {
    "eligible by the outcome": ({"eligible": "y > 1"}, "names 'y', which is not yet known"),
    "eligible by the action": ({"eligible": "a1 == 1"}, "names 'a1', which is not yet known"),
    "eligible by a later action": ({"eligible": "a2 == 1", "more": {}}, "names 'a2', which is not yet known"),
    "eligible by a reward": ({"eligible": "r > 0", "reward": "r"}, "names 'r', which is not yet known"),
    "among by the outcome": ({"among": "y > 1"}, "names 'y', which is not yet known"),
    "feasible by the outcome": ({"feasible": {"y > 1": [0], "y <= 1": [1]}}, "names 'y', which is not"),
    "formula with the outcome": ({"formula": "x + a1 + y"}, "names 'y', which is not yet known"),
    "formula with a later action": ({"formula": "x + a1 + a2", "more": {}}, "names 'a2', which is not yet"),
    "formula with a later class": (
        {"formula": "x + a1 + (1 | klass)", "more": {"delivered_in": "klass"}},
        "names 'klass', which is not yet known",
    ),
    "own action as a factor": ({"formula": "x + a1 + (1 | site:a1)"}, "grouping factor of its own stage"),
    "own action as a factor alone": ({"formula": "x + (1 | a1)"}, "grouping factor of its own|does not name"),
    "formula with units": ({"formula": "x + a1 + w", "unit": "w"}, "the names of the units"),
    "weights are the outcome": ({"weights": "y"}, "is outcome and weights"),
    "weights are the action": ({"weights": "a1"}, "the action of stage a1 and weights"),
    "site is the outcome": ({"site": "y"}, "is outcome and site"),
    "site is an action": ({"site": "a1"}, "is site and the action"),
    "site is the unit": ({"site": "id", "unit": "id"}, "is unit and site"),
    "unit is the outcome": ({"unit": "y"}, "is outcome and unit"),
    "reward is the outcome": ({"reward": "y"}, "counted twice"),
    "one reward twice": ({"reward": "r", "more": {"reward": "r"}}, "counted twice"),
    "reward is the action": ({"reward": "a1"}, "action of stage a1 and the reward"),
    "outcome is the action": ({"outcome": "a1"}, "is outcome and the action"),
    "delivered in the site": ({**SITES, "delivered_in": "site"}, "is site and delivered_in"),
    "delivered in the outcome": ({"delivered_in": "y"}, "is outcome and delivered_in"),
    "delivered in and in the formula": (
        {"formula": "x + a1 + (1 | klass)", "delivered_in": "klass"},
        "named in the formula and in delivered_in",
    ),
    "outcome is a number": ({"outcome": 3}, "outcome must name a column"),
    "site is a list": ({"site": ["site"]}, "site must name a column"),
    "reward is a number": ({"reward": 1.0}, "reward must name a column"),
    "lower is better in words": ({"higher_is_better": "no"}, "higher_is_better='no': must be True or False"),
    "site means in words": ({"site_means": "no"}, "must be True or False"),
    "earlier terms in words": ({"earlier_terms": "no"}, "must be True or False"),
    "earlier clusters in words": ({"earlier_clusters": 1}, "must be True or False"),
    "another family": ({"family": "cauchy"}, "allowed are"),
    "actions as text": ({"actions": "01"}, "must be a list of actions"),
    "actions as a number": ({"actions": 2}, "must be a list of actions"),
    "one action": ({"actions": [0]}, "at least two actions"),
    "repeated actions": ({"actions": [0, 0.0]}, "repeated labels"),
    "an action of a table's words": ({"actions": ["no clear choice", 1]}, "another label"),
    "feasible is a number": ({"feasible": 3}, "must map conditions"),
    "feasible actions are a number": ({"feasible": {"x > 0": 3}}, "list of actions"),
    "feasible names another action": ({"feasible": {"x > 0": [3], "x <= 0": [0]}}, "which actions does not have"),
    "priors are a list": ({"priors": ["x"]}, "must map parameters"),
    "a prior is text": ({"priors": {"x": "Normal(0, 1)"}}, "must be a prior such as"),
    "a prior of nothing": ({"priors": {"zz": bdtr.trial.Normal(0, 1)}}, "zz"),
}  # fmt: skip

FORMULAS = {
    "x a1": "Columns are joined by",
    "x + a1 +": "breaks off",
    "+": "breaks off",
    "": "formula is missing",
    "I(x, x) + a1": r"I\(\.\.\.\) takes one expression",
    "bs(x, df=-3) + a1": "whole number from 1 to 100",
    "bs(x, df=1000000) + a1": "whole number from 1 to 100",
    "bs(x, df=3.5) + a1": "whole number",
    "bs(x, df=a1) + a1": "whole number",
    "poly(x, 99) + a1": "whole number from 1 to 10",
    "poly(x, raw=3) + a1": "True or False",
    "bs(x, 4, 3) + a1": "options by name",
    "log(x, 2) + a1": "takes one expression",
    "scale(x, df=3) + a1": "is no option",
    "log(a1) + a1": "puts 'a1' into a transform, which takes numbers",
    "I(g) + a1": "puts 'g' into a transform, which takes numbers",
    "I(1/0) + a1": "divides by 0",
    "I(x / 0) + a1": "divides by 0",
    "I(2) + a1": "names no column",
    "I(9**9**9**9*x) + a1": "is no number",
    "I(x**9**9**9**9) + a1": "is no number",
    "I((-8)**0.5*x) + a1": "is no number",
    "I(1e999*x) + a1": "is no number",
    "I(007*x) + a1": "is no number",
    "exp(I(x * 1e300)) + a1": "finite",
    "log(x) + a1": "finite",
    "x + (1 | site):a1": "added with [+] and not multiplied",
    "x + (1 | site) * a1": "added with [+] and not multiplied",
    "x + a1:(1 | site)": "added with [+], not ':'",
    "x + a1 - (1 | site)": "added with [+], not '-'",
    "x + ((1 | site))": "added with",
    "x - a1": "takes out a1, which is not in it",
    "x + a1 - a1": "does not name the action",
    "x + a1 + (1 | site) - a1": "does not name the action",
    "x - 0 + a1": r"write \+ 1 or - 1",
    "1:x + a1": "stands for the intercept",
    "x*(1 + a1)": "outside parentheses",
    "x + a1 + 2": "the number 2 is not allowed",
    "x + a1 + (1 | site:site)": "cannot read the group term",
    "x + a1 + (1 | site/klass:x)": "cannot read the group term",
    "x + a1 + (0 | site)": "no effects that could vary",
    "x + a1 + (1 - 1 | site)": "no effects that could vary",
    "x + a1 + (1 | site:klass) + (1 | klass:site)": "several group terms",
    "bs(x, df=100) * bs(w, df=100) + a1": "makes .* columns",
    "poly(x, 10) * poly(w, 10) * poly(r, 10) * poly(r, 9) + a1": "makes .* columns",
    "x + a1 + (| site)": "cannot read the group term",
    "x + a1 + (1 | site) + (x | site)": "several group terms for site",
    "x + a1 | site": "bar outside parentheses",
    "log + a1": "name of a transform",
    "ﬁ + a1": "must be renamed",
    "x² + a1": "is no column|not allowed",
    "*".join(f"z{j}" for j in range(16)) + " + a1": "more than 500 terms",
    "(" * 60 + "x" + ")" * 60 + " + a1": "nested more than 50 deep",
    "I(" + "-(" * 60 + "x" + ")" * 61 + " + a1": "nested more than 50 deep",
    "x + " * 6000 + "a1": "more than 2,000 names",
    "y ~ x + a1": "right-hand side only",
    "__import__('os') + a1": "not allowed",
    "x.real + a1": "not allowed",
    "x[0] + a1": "not allowed",
    "I(x if a1 else 0) + a1": "no column|joined",
    "I(lambda: x) + a1": "no column|joined",
    "I(x == 1) + a1": "has|holds",
}

ENTRIES = {
    "condition empty": (lambda: Condition(" "), "non-empty text"),
    "condition no text": (lambda: Condition(3), "non-empty text"),
    "condition, order of text and numbers": (lambda: Condition("x < '1'").evaluate(FRAME), "compares text with numbers"),
    "condition, order of text": (lambda: Condition("g < 'b'").evaluate(FRAME), "orders text"),
    "condition, no such column": (lambda: Condition("zz == 1").evaluate(FRAME), "names 'zz'"),
    "condition, parentheses": (lambda: Condition("(" * 200 + "x == 1" + ")" * 200), "nested more than 50 deep"),
    "condition, a call": (lambda: Condition("f(x) == 1"), "not understood"),
    "condition, huge": (lambda: Condition("x == 1" + "9" * 5000), "is no number"),
    "condition, long": (lambda: Condition("x == 1 or " * 100_000 + "x == 1"), "more than 5,000"),
    "regime without rules": (lambda: bdtr.backward.Regime("r", None), "a rule for each stage"),
    "regime without a name": (lambda: bdtr.static(["a"], a1=0), "takes a name"),
    "prior too narrow": (lambda: bdtr.trial.Normal(0, 1e-300), "must be finite and above 0"),
    "prior of text": (lambda: bdtr.trial.Normal("x", 1), "must be finite"),
    "trial of no text": (lambda: bdtr.trial.protocol_from_text(3), "must be a text"),
    "condition, attribute": (lambda: Condition("x.y == 1"), "cannot read"),
    "rule, no text": (lambda: read_rule(3), "must be text"),
    "rule, parentheses": (lambda: read_rule("(" * 20000 + "a" + ")" * 20000), "nested more than 50 deep"),
    "rule, else alone": (lambda: read_rule("a else b"), "'else' without 'if'"),
    "rule, no action": (lambda: read_rule("if x > 0"), "lacks an action"),
    "rule of a mapping, no text": (lambda: bdtr.rule(a1={1: 0}), "non-empty text"),
    "rule of an empty mapping": (lambda: bdtr.rule(a1={}), "empty"),
    "rule of nothing": (lambda: bdtr.rule(a1=None), "is no rule"),
    "rule without stages": (lambda: bdtr.rule("r"), "name a rule for each stage"),
    "prior, a call": (lambda: prior_from_text("Cauchy(0, 1)"), "is no prior"),
    "prior, code": (lambda: prior_from_text("Normal(__import__('os'), 1)"), "takes the numbers"),
    "prior, infinite": (lambda: prior_from_text("Normal(0, inf)"), "takes the numbers"),
    "parameter without a name": (lambda: read_parameters(["=3"]), "write name=value"),
    "formula no text": (lambda: Formula.parse(3), "must be text"),
    "stage without action": (lambda: bdtr.Stage("", formula="x"), "must name a column"),
    "trial without stages": (lambda: bdtr.Trial([]), "non-empty list"),
    "trial of a number": (lambda: bdtr.Trial(3), "non-empty list"),
    "fit of no trial": (lambda: bdtr.fit("t", FRAME, **HOW), "must be a bdtr.Trial"),
}  # fmt: skip

ARGUMENTS = {
    "seed -1": ({"random_seed": -1}, "must be a whole number from 0"),
    "seed of text": ({"random_seed": "1"}, "must be a whole number from 0"),
    "seed True": ({"random_seed": True}, "must be a whole number from 0"),
    "seed huge": ({"random_seed": 1 << 200}, "must be a whole number from 0"),
    "draws True": ({"draws": True}, "draws=True"),
    "draws 0": ({"draws": 0}, "draws=0"),
    "draws 1e9": ({"draws": 10**9}, "from 1 to 1,000,000"),
    "draws 2.5": ({"draws": 2.5}, "draws=2.5"),
    "chains of text": ({"chains": "4"}, "chains='4'"),
    "tune -1": ({"tune": -1}, "tune=-1"),
    "propagated 7": ({"propagated": 7}, "must divide"),
    "another sampler": ({"sampler": "gibbs"}, "allowed are 'pymc'"),
    "missing no word": ({"missing": "drop"}, "allowed are 'error', 'exclude'"),
}

HEAD = 'outcome="y"\n[[stages]]\naction="a1"\nactions=[0,1]\nformula="x + a1"\n'
PROTOCOLS = {
    "": r"\[\[stages\]\]",
    "x = " + "[" * 20000: "nested too deep|no TOML",
    HEAD + "[fit]\ndraws=" + "9" * 99999: "no TOML file",
    HEAD + "[fit]\ndraws='many'\n": "draws must be a whole number",
    HEAD + "[fit]\ndraw=1\n": "Did you mean 'draws'",
    HEAD + 'feasible={"x==1"=3}\n': "list of actions",
    HEAD + "feasible=3\n": "feasible must be a table",
    HEAD + 'priors={x="Cauchy(0,1)"}\n': "is no prior",
    HEAD + 'site_means="no"\n': "site_means must be true or false",
    HEAD + 'among="x >"\n': "is not understood",
    HEAD.replace("x + a1", "x +"): "breaks off",
    HEAD.replace("x + a1", "I(9**9**9**9*x)"): "is no number",
    HEAD.replace('"y"', "3"): "outcome must be a text",
    HEAD + '[regimes.r]\na1="if"\n': "lacks an action",
    HEAD + '[regimes.r]\na2="1"\n': "there is no 'a2'",
    HEAD + "[regimes]\nr=1\n": "a table of its own",
    HEAD + "[report]\ntitle=3\n": "title must be a text",
    HEAD + '[texts]\ngoals="g"\n': "Did you mean 'goal'",
    "\x00": "no TOML file",
}


def raises(run, message) -> None:
    """An error of bdtr's own in one line that says this, at once."""
    began = time.perf_counter()
    with pytest.raises(BdtrError) as found:
        run()
    said = str(found.value)
    assert re.search(message, said), said
    assert "\n" not in said and len(said) < 1500, said
    assert "\x1b" not in said
    assert time.perf_counter() - began < 2.0


@pytest.fixture(autouse=True)
def no_sampling(monkeypatch, request):
    """Nothing is sampled before an error."""
    if "good" not in request.fixturenames:
        monkeypatch.setattr(sampling, "fit_direct", lambda *_, **__: pytest.fail("sampled"))


@pytest.mark.parametrize("name", DATA)
def test_data(name):
    make, message = DATA[name]
    data = make()
    raises(lambda: fit(data), message)


@pytest.mark.parametrize("name", ROLES)
def test_roles(name):
    words, message = ROLES[name]
    raises(lambda: fit(**words), message)


@pytest.mark.parametrize("text", FORMULAS, ids=lambda t: t[:40])
def test_formulas(text):
    data = FRAME.assign(
        **{f"z{j}": FRAME.x for j in range(16)}, **{"ﬁ": FRAME.x, "x²": FRAME.x, "log": FRAME.x}
    )
    raises(lambda: fit(data, formula=text, site_means=False), FORMULAS[text])


@pytest.mark.parametrize("name", ENTRIES)
def test_entries(name):
    raises(*ENTRIES[name])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name):
    how, message = ARGUMENTS[name]
    raises(lambda: fit(how=how), message)


@pytest.mark.parametrize("text", PROTOCOLS, ids=lambda t: t.removeprefix(HEAD)[:30])
def test_protocols(text):
    raises(lambda: protocol_from_text(text), PROTOCOLS[text])


def test_files(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"outcome='\xff'")
    for name in ("latin.toml", "absent.toml", "."):
        raises(lambda name=name: read(tmp_path / name), "cannot be read")
    protocol = protocol_from_text(HEAD)
    for name, message in (
        ("n.txt", "ends in .ipynb"),
        (".", "is a folder"),
        ("no/n.py", "does not exist"),
        ("empty.csv", "ends in .ipynb"),
    ):
        raises(lambda name=name: starter_notebook(tmp_path / name, protocol, "None"), message)


@pytest.fixture(scope="module")
def good():
    return fit()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: pd.concat([f, f["x"]], axis=1), "appear twice"),
        (lambda f: f.to_dict(), "got dict"),
        (lambda f: f.head(0), "no rows"),
        (lambda f: f.drop(columns="x"), "no unit has a complete history"),
        (lambda f: f.assign(x=np.nan), "no unit has a complete history"),
        (lambda f: f.assign(x="3"), "numbers kept as text"),
        (lambda f: f.assign(x="tall"), "must hold numbers"),
        (lambda f: f.assign(x=pd.Timestamp("2020-01-01")), "holds dates"),
        (lambda f: f.assign(x=np.inf), "infinite"),
    ],
)
def test_recommendations(good, make, message):
    data = make(FRAME.head(6))
    raises(lambda: bdtr.recommend(good, data), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"interval": 2}, "between 0 and 1"),
        ({"interval": "wide"}, "between 0 and 1"),
        ({"margin": -1}, "0 or more"),
        ({"margin": "small"}, "0 or more"),
        ({"sites": "old"}, "allowed are"),
        ({"clear": None}, "between 0 and 1"),
    ],
)
def test_choices_of_recommendations(good, words, message):
    raises(lambda: bdtr.recommend(good, FRAME.head(6), **words), message)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda f: bdtr.value(f, bdtr.static(a1=7)), "is no action"),
        (lambda f: bdtr.value(f, bdtr.static(a9=1)), "must name an action for each stage"),
        (lambda f: bdtr.value(f, [bdtr.static("s", a1=0), bdtr.static("s", a1=1)]), "same name"),
        (lambda f: bdtr.value(f, "best"), "'best' is no regime"),
        (lambda f: bdtr.value(f, 3), "3 is no regime"),
        (lambda f: bdtr.value(f, bdtr.rule(a1="1 if y > 0 else 0")), "names 'y'"),
        (lambda f: bdtr.value(f, bdtr.rule(a1="1 if x > 'a' else 0")), "numbers"),
        (lambda f: bdtr.value(f, bdtr.rule("r", a1=lambda h: 3)), "must return one action"),
        (lambda f: bdtr.value(f, bdtr.rule("r", a1=lambda h: h["zz"])), "zz"),
        (lambda f: bdtr.value(f, interval=1.5), "between 0 and 1"),
        (lambda f: bdtr.value(f, population="world"), "population"),
        (lambda f: bdtr.value(FRAME), "must be a fit"),
        (lambda f: bdtr.value(f, by=3), "by=3"),
        (lambda f: bdtr.crossfit(f, random_seed=-1), "random_seed=-1"),
        (lambda f: bdtr.crossfit(f, folds="x"), "folds='x'"),
        (lambda f: bdtr.values.ranks(bdtr.value(f), higher_is_better="no"), "True or False"),
        (lambda f: bdtr.values.ranks(3), "as bdtr.value makes them"),
        (
            lambda f: bdtr.value(f, bdtr.rule("r", a1=lambda h: pd.Series([[1]] * len(h)))),
            "must return",
        ),
        (lambda f: bdtr.checks.predictive_checks(f, draws=-1), "draws=-1"),
        (lambda f: bdtr.decisions.over_history(f, "a1", "x", sites="nope"), "sites='nope'"),
        (lambda f: bdtr.report(f, "x.html", regimes=["x"]), "list of regimes"),
        (lambda f: bdtr.report(f, "x.html", thresholds=["a"]), "list of numbers"),
        (lambda f: bdtr.report(f, "x.html", over={"a1": 3}), "lists of columns"),
        (lambda f: bdtr.report(f, "x.html", planned={"a1": {"0": "x"}}), "weights of actions"),
        (lambda f: bdtr.report(f, "x.html", title=3), "must be a text"),
        (lambda f: bdtr.report(f, "x.html", texts=["goal"]), "must map names"),
        (lambda f: bdtr.report(f, "x" * 300 + ".html"), "cannot be written"),
        (lambda f: backward_pass(f, "worst"), "allowed are"),
        (lambda f: f.draws("a9"), "allowed are 'a1'"),
        (lambda f: f.save("x.csv"), "netCDF"),
        (lambda f: f.summary(interval=0), "between 0 and 1"),
        (lambda f: bdtr.crossfit(f, folds=1), "folds"),
        (lambda f: bdtr.crossfit(f, propagated=7), "must divide"),
        (lambda f: bdtr.crossfit(f, over="sites"), "site"),
        (lambda f: bdtr.report(f, "x.txt"), "must end in .html"),
        (lambda f: bdtr.report(f, "/nowhere/x.html"), "does not exist"),
        (lambda f: bdtr.report(f, "x.html", thorough="no"), "True or False"),
        (lambda f: bdtr.report(f, "x.html", texts={"gaol": "g"}), "allowed are goal"),
    ],
)
def test_questions_to_a_fit(good, ask, message):
    raises(lambda: ask(good), message)


def test_the_tables_are_long():
    assert sum(map(len, (DATA, ROLES, FORMULAS, ENTRIES, ARGUMENTS, PROTOCOLS))) >= 200
