"""The stage models in words, formulas and mathematics; their priors and what these imply."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from bdtr.checks.predictive import known_by_means
from bdtr.data.smooths import SmoothDesign
from bdtr.reports.blocks import Block, Part, ask, code, folded, items, maths, table, text
from bdtr.reports.case import Case
from bdtr.reports.words import stage_words
from bdtr.stages.outcome import OutcomeModel
from bdtr.trial.protocol import TEXTS

__all__ = ["models", "prior_check"]


def models(case: Case) -> Part:
    """Every stage's model, and the priors."""
    fit, blocks = case.fit, []
    for k in range(fit.stages):
        blocks += _stage(case, k)
    if fit.notes or fit.added:
        blocks += [text("Notes:"), items([*fit.added, *fit.notes])]
    blocks += [
        ask(TEXTS["priors"], case.said("priors")),
        folded(
            "Priors",
            [
                table(
                    fit.priors.set_index(["stage", "parameter"]),
                    "Intercepts are for columns at their means. Normal(mean, SD), HalfNormal(scale), "
                    "HalfStudentT(degrees of freedom, scale), LKJ(eta), Gamma(shape, rate) of nu - 1.",
                )
            ],
        ),
        *prior_check(case),
    ]
    return Part("models", "Models", blocks)


def _stage(case: Case, k: int) -> list[Block]:
    words = stage_words(case.fit, k)
    who = [
        f"Stage {words['action']}. Actions: {words['actions']} (reference: {words['reference']})."
    ]
    if words["feasible"]:
        who.append(f"Feasible: {'; '.join(words['feasible'])}.")
    if words["among"]:
        who.append(f"A decision is due among units with {words['among']}.")
    if words["eligible"]:
        who.append(f"Eligible by design: {words['eligible']}.")
    if words["states"]:
        who.append(
            "It is computed (g-computation): the expected payoff of the next stage, which follows the "
            "recommended rule, is integrated over what follows each action, in each posterior draw. The "
            "models of what follows are "
            f"{', '.join(f'{s["name"]}, {s["family"]}' for s in words['states'])}:"
        )
        out = [text(" ".join(who)), *(code(s["formula"]) for s in words["states"])]
        lines = [f"{g}." for s in words["states"] for g in s["groups"]]
        lines += [
            f"{s['name']}, site means (Mundlak): {', '.join(s['means'])}."
            for s in words["states"]
            if s["means"]
        ]
    else:
        who.append(f"The model of {words['response']} is {words['family']}:")
        out = [text(" ".join(who)), code(words["formula"])]
        lines = [f"{g}." for g in words["groups"]]
    lines += [_curve_words(s) for s in case.fit.designs[k].smooths]
    if words["means"]:
        lines.append(
            f"Site means (Mundlak), as deviations from their average: {', '.join(words['means'])}."
        )
    if lines:
        out.append(items(lines))
    models = {f"state {s['name']}": case.fit.states[s["name"]].model(0) for s in words["states"]}
    for what, model in (models or {f"stage {words['action']}": case.fit.model(k)}).items():
        if isinstance(model, OutcomeModel):
            out.append(maths(f"Model of {what} in mathematics", _mathml(model)))
    return out


def _curve_words(smooth: SmoothDesign) -> str:
    """A smooth term in words."""
    what = "a spline" if len(smooth.term.variables) == 1 else "a smooth surface"
    each = f", for each label of {smooth.term.by}" if len(smooth.curves) > 1 else ""
    return (
        f"{smooth.name}: {what} in {' and '.join(smooth.term.variables)}{each}; how far it departs from "
        f"{'a line' if len(smooth.term.variables) == 1 else 'a plane'} has an SD that is estimated."
    )


def _mathml(model: OutcomeModel) -> str:
    """The model as MathML: likelihood, linear predictor, group effects."""
    family = model.family
    y, eta = _sub("y", "i"), _sub("η", "i")
    spread = _sub("σ", "a[i]") if model.by_action else "<mi>σ</mi>"
    variance = f"<msup><mrow>{spread}</mrow><mn>2</mn></msup>"
    if family.link == "identity":
        normal = _call("Normal", eta + _op(",") + variance)
        law = (
            _call("Student t", f"<mi>ν</mi>{_op(',')}{eta}{_op(',')}{spread}")
            if family.has_nu
            else normal
        )
        likelihood = y + _op("~") + (law if family.linear else _call("Censored", law))
    elif family.quasi:
        mean = _sub("μ", "i")
        about = mean + (_op("(") + "<mn>1</mn>" + _op("−") + mean + _op(")")) * (
            family.link == "logit"
        )
        likelihood = (
            _call("E", y) + _op("=") + mean + _op(",") + _call("Var", y) + _op("=") + variance + about
            + _op(",") + _call(family.link, mean) + _op("=") + eta
        )  # fmt: skip
    else:
        # Mean per trial or unit of exposure, then what the family has beside it.
        logistic = f"<msup>{_name('logit')}<mn>-1</mn></msup>"
        inverse = _name("exp") if family.link == "log" else logistic
        law = inverse + _op("(") + eta + _op(")")
        if family.companion:
            law = _sub("m", "i") + _op(",") + law
        if family.shape:
            law += _op(",") + (spread if family.has_sigma else "<mi>κ</mi>")
        if family.name == "lognormal":
            law = eta + _op(",") + variance
        likelihood = y + _op("~") + _call(family.name.replace("_", " ").capitalize(), law)
    terms = ["<msubsup><mi>x</mi><mi>i</mi><mo>′</mo></msubsup><mi>β</mi>"]
    laws = []
    for factor in model.factors[: len(model.design.groups)]:
        name = escape(factor.name)
        effect = f"<msub><mi>u</mi><mtext>{name}[i]</mtext></msub>"
        if factor.terms == 1:
            terms.append(effect)
            law = _call(
                "Normal",
                f"<mn>0</mn>{_op(',')}<msubsup><mi>τ</mi><mtext>{name}</mtext><mn>2</mn></msubsup>",
            )
        else:
            terms.append(f"<msubsup><mi>z</mi><mi>i</mi><mo>′</mo></msubsup>{effect}")
            law = _call(
                "Normal", f"<mn>0</mn>{_op(',')}<msub><mi>Σ</mi><mtext>{name}</mtext></msub>"
            )
        laws.append(f"<msub><mi>u</mi><mtext>{name}</mtext></msub>{_op('~')}{law}")
    for smooth in model.design.smooths:
        name = escape(smooth.name)
        f, u = (f"<msub><mi>{x}</mi><mtext>{name}</mtext></msub>" for x in ("f", "u"))
        variance = f"<msubsup><mi>τ</mi><mtext>{name}</mtext><mn>2</mn></msubsup>"
        terms.append(f + _op("(") + _sub("x", "i") + _op(")"))
        laws.append(f"{f}{_op('=')}<mi>B</mi><mo>′</mo>{u}")
        laws.append(u + _op("~") + _call("Normal", f"<mn>0</mn>{_op(',')}{variance}<mi>I</mi>"))
    rows = [likelihood, eta + _op("=") + _op("+").join(terms), *laws]
    cells = "".join(f"<mtr><mtd>{row}</mtd></mtr>" for row in rows)
    return f'<math display="block"><mtable columnalign="left">{cells}</mtable></math>'


def _op(sign: str) -> str:
    return f"<mo>{escape(sign)}</mo>"


def _name(word: str) -> str:
    return f'<mi mathvariant="normal">{word}</mi>'


def _sub(symbol: str, index: str) -> str:
    return f"<msub><mi>{symbol}</mi><mi>{index}</mi></msub>"


def _call(function: str, inner: str) -> str:
    return f"{_name(function)}{_op('(')}{inner}{_op(')')}"


def prior_check(case: Case) -> list[Block]:
    """What the priors of the last stage say of the payoff before the data, beside the data."""
    fit = case.fit
    last = fit.stages - 1
    model = fit.model(last)
    if not isinstance(model, OutcomeModel):
        return [
            text(
                "Prior predictive check: the last stage has a model of the authors' own.", note=True
            )
        ]
    from bdtr.stages.arviz_groups import groups

    data = fit.require_data("a report")
    units = [str(u) for u in np.flatnonzero(data.stages[last].fitted)]
    posterior = fit.posterior(last)
    found = groups(
        model, data.payoff, units, posterior, ["prior_predictive"], fit.settings.stream(fit.stages)
    )["prior_predictive"]["y"].to_numpy()[0]
    observed = data.payoff
    measures = {"mean": np.mean, "SD": np.std}
    if known_by_means(model):
        measures = {"mean": np.mean}
    rows = {
        name: [of(observed), *np.quantile([of(y) for y in found], [0.025, 0.5, 0.975])]
        for name, of in measures.items()
    }
    frame = pd.DataFrame.from_dict(
        rows, orient="index", columns=["observed", "lower", "median", "upper"]
    )
    return [
        table(
            frame.rename_axis("of the payoff"),
            f"Prior predictive check of stage {fit.designs[last].action}: statistics of payoffs drawn from "
            "the priors alone, 95 % equal-tailed intervals, and of the data.",
        )
    ]
