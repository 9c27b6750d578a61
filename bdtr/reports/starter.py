"""A notebook to begin with: a trial spelled out in Python and the questions one asks first, ready to edit."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from bdtr.reports.notebooks import NotebookError
from bdtr.results.arguments import text
from bdtr.results.files import check_output, write_whole
from bdtr.trial.protocol import Protocol, stage_words, trial_words

__all__ = ["starter_file", "starter_notebook", "trial_code"]

_WIDE = 88
_KINDS = (".ipynb", ".py", ".md")

# What a protocol says of the fit and the notebook has no parameter for.
_KEPT = ("missing", "imputations", "imputation", "auxiliary", "delta", "off_protocol")


def trial_code(protocol: Protocol) -> str:
    """Python that makes the trial of a protocol again, defaults left out.

    Examples
    --------
    >>> from bdtr.trial.trial import Stage, Trial
    >>> trial = Trial([Stage("a", actions=[0, 1], formula="a")], outcome="y")
    >>> print(trial_code(Protocol(trial)).splitlines()[0])
    trial = bdtr.Trial(
    """
    lines = ["trial = bdtr.Trial(", "    stages=["]
    for stage in protocol.trial.stages:
        words = stage_words(stage)
        lines += ["        bdtr.Stage(", f"            {_shown(words.pop('action'))},"]
        for name, value in words.items():
            lines += _argument(name, value, 12)
        lines.append("        ),")
    lines.append("    ],")
    for name, value in trial_words(protocol.trial).items():
        lines += _argument(name, value, 4)
    return "\n".join([*lines, ")"])


def _argument(name: str, value: Any, indent: int) -> list[str]:
    space = " " * indent
    if name == "priors":
        inner = [f"{space}    {_shown(key)}: bdtr.trial.{text}," for key, text in value.items()]
        return [f"{space}priors={{", *inner, f"{space}}},"]
    one = f"{space}{name}={_shown(value)},"
    if len(one) <= _WIDE or not isinstance(value, Mapping):
        return [one]
    inner = [f"{space}    {_shown(key)}: {_shown(part)}," for key, part in value.items()]
    return [f"{space}{name}={{", *inner, f"{space}}},"]


def _shown(value: Any) -> str:
    """A value as Python, texts in double quotes where that is as readable."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_shown(k)}: {_shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    plain = isinstance(value, str) and value.isprintable() and not set(value) & {'"', "\\"}
    return f'"{value}"' if plain else repr(value)


def starter_notebook(
    path: str | os.PathLike,
    protocol: Protocol,
    data: str,
    title: str | None = None,
    imports: str = "import bdtr",
) -> Path:
    """Write a notebook for a trial.

    Parameters
    ----------
    path
        File to write, ``.ipynb`` or text with cells (``.py``, ``.md``).
    protocol
        The trial, and the arguments of its fit.
    data
        Python that reads the data, by :func:`bdtr.data.read_data` or otherwise.
    title
        Its heading.
    imports
        Imports that the cells need, those of ``data`` among them.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    NotebookError
        If jupytext is missing, or the file is there already.

    Examples
    --------
    >>> from bdtr.trial import Protocol
    >>> starter_notebook("trial.ipynb", Protocol(trial), 'pd.read_csv("pupils.csv")').name
    'trial.ipynb'
    """
    if importlib.util.find_spec("jupytext") is None:
        raise NotebookError(
            "Writing a notebook needs jupytext, of the extra 'notebook': python -m pip install '.[notebook]' "
            "in the clone of bdtr."
        )
    if not isinstance(protocol, Protocol):
        raise NotebookError(
            f"protocol={protocol!r}: must be a bdtr.trial.Protocol: bdtr.trial.read(path), or "
            "bdtr.trial.Protocol(trial)."
        )
    for name, given in (("data", data), ("imports", imports)):
        text(name, given)
    path = starter_file(path)
    import jupytext
    from nbformat import v4

    made = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    notebook = v4.new_notebook()
    for kind, source in _cells(protocol, data, title or "A trial", imports):
        notebook.cells.append(made[kind](source))
    notebook.cells[1].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3", "language": "python", "name": "python3",
    }  # fmt: skip
    fmt = "py:percent" if path.suffix == ".py" else path.suffix.removeprefix(".")
    write_whole({path: jupytext.writes(notebook, fmt=fmt)})
    return path


def starter_file(path: str | os.PathLike, argument: str = "-o") -> Path:
    """Where a notebook may be written: to a new file of a kind that there is."""
    path = check_output(path, argument)
    if path.suffix not in _KINDS:
        raise NotebookError(f"{argument} {path}: a notebook ends in .ipynb, .py or .md.")
    if os.path.lexists(path):
        raise NotebookError(f"{argument} {path}: is there already; choose another name.")
    return path


def _heading(title: str) -> str:
    """A title as one line of Markdown that is read as the title is: without tags, links or images; whatever
    breaks lines is a blank."""
    line = "".join(c for c in " ".join(title.split()) if c.isprintable())
    plain = escape(line, quote=False).replace("\\", "&#92;")
    return re.sub(r"([`*_~\[\]$]|#$|:(?=//))", r"\\\1", plain)


def _cells(protocol: Protocol, data: str, title: str, imports: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each cell."""
    settings = {k: v for k, v in protocol.fit.items() if k in _KEPT}
    chosen = "".join(f"    {name}={_shown(value)},\n" for name, value in settings.items())
    trial = protocol.trial
    stage = _shown(trial.stages[0].action)
    regimes = "".join(
        f"    bdtr.rule({_shown(name)}, **{_shown(rules)}),\n"
        for name, rules in protocol.regimes.items()
    )
    yield (
        "markdown",
        (
            f"# {_heading(title)}\n\n"
            "Written by `bdtr notebook`; change what you like. Run it from the command line with other "
            "values of the\nparameters: `bdtr report this.ipynb -p draws=200 -o page.html`."
        ),
    )
    yield (
        "code",
        (
            f"seed = {_shown(protocol.fit.get('random_seed', 2026))}\n"
            "draws = 1000  # posterior draws of each of 4 chains at the last stage\n"
            "propagated = None  # draws sent through backward induction; None: about 1,000"
        ),
    )
    yield "code", imports
    yield "markdown", "## The data and the trial"
    yield "code", trial_code(protocol)
    yield "code", f"data = {data}\ndata.head()"
    yield (
        "code",
        (
            f'fit = bdtr.fit(\n    trial,\n    data,\n{chosen}    sampler="direct",\n'
            "    draws=draws,\n    propagated=propagated,\n    random_seed=seed,\n    progress=False,\n"
            ")\nfit.state"
        ),
    )
    yield (
        "markdown",
        (
            "## Who is in the analysis\n"
            "Nothing is dropped silently: each unit is counted at the first reason that applies."
        ),
    )
    yield "code", "fit.flow"
    yield "code", "bdtr.checks.covariate_balance(fit)"
    yield "markdown", "## What regimes are worth"
    yield (
        "code",
        (
            f"regimes = [\n    bdtr.recommended(),\n    *bdtr.embedded(fit),\n{regimes}]\n"
            "values = bdtr.value(fit, regimes)\nvalues"
        ),
    )
    outcome = _shown(trial.outcome or "payoff")
    yield "code", f"bdtr.plots.value_forest(values.draws, {outcome})"
    yield "code", "bdtr.values.set_of_best(values)"
    yield "markdown", "## What to do, and how sure we are"
    yield "code", "bdtr.recommend(fit, data)"
    if trial.states:
        yield "markdown", "Regression and g-computation side by side:"
        yield "code", "bdtr.compare_ways(fit)"
    else:
        yield "markdown", "The recommended regime, valued on units that it was not learned from:"
        yield "code", "bdtr.crossfit(fit)"
    if trial.site:
        yield (
            "markdown",
            ("## Sites\nWhat each action adds at each site, and at one that was not in the trial."),
        )
        yield (
            "code",
            (f'blips = bdtr.values.site_blips(fit, {stage})\nblips.table.loc[["(new site)"]]'),
        )
    yield "markdown", "## Do the models look like the data?"
    yield "code", "bdtr.checks.predictive_checks(fit)"
