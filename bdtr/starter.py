"""A notebook to begin with: a trial spelled out in Python and the questions one asks first, ready to edit."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdtr.files import write_whole
from bdtr.notebooks import NotebookError
from bdtr.protocol import Protocol, stage_words, trial_words

__all__ = ["starter_notebook", "trial_code"]

_WIDE = 88


def trial_code(protocol: Protocol) -> str:
    """Python that makes the trial of a protocol again, defaults left out.

    Examples
    --------
    >>> from bdtr.trial import Stage, Trial
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
        inner = [f"{space}    {_shown(key)}: bdtr.priors.{text}," for key, text in value.items()]
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
    path: str | os.PathLike, protocol: Protocol, data: str, title: str | None = None
) -> Path:
    """Write a notebook for a trial.

    Parameters
    ----------
    path
        File to write, ``.ipynb`` or text with cells (``.py``, ``.md``).
    protocol
        The trial, and the arguments of its fit.
    data
        Python that reads the data.
    title
        Its heading.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    NotebookError
        If jupytext is missing, or the file is there already.

    Examples
    --------
    >>> starter_notebook("trial.ipynb", protocol, 'pd.read_csv("pupils.csv")')  # doctest: +SKIP
    """
    path = Path(path)
    if importlib.util.find_spec("jupytext") is None:
        raise NotebookError(
            "Writing a notebook needs jupytext: python -m pip install 'bdtr[notebook]'."
        )
    if path.suffix not in (".ipynb", ".py", ".md"):
        raise NotebookError(f"-o {path}: a notebook ends in .ipynb, .py or .md.")
    if path.exists():
        raise NotebookError(f"-o {path}: is there already; choose another name.")
    import jupytext

    notebook = jupytext.reads(_text(protocol, data, title or "A trial"), fmt="py:percent")
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3", "language": "python", "name": "python3",
    }  # fmt: skip
    fmt = "py:percent" if path.suffix == ".py" else path.suffix.removeprefix(".")
    write_whole({path: jupytext.writes(notebook, fmt=fmt).encode()})
    return path


def _text(protocol: Protocol, data: str, title: str) -> str:
    """The cells, in jupytext's percent format."""
    settings = {k: v for k, v in protocol.fit.items() if k in ("missing", "off_protocol")}
    chosen = "".join(f"    {name}={_shown(value)},\n" for name, value in settings.items())
    seed = protocol.fit.get("random_seed", 2026)
    stage = _shown(protocol.trial.stages[0].action)
    sampler = "direct" if protocol.trial.family == "gaussian" else "pymc"
    regimes = "".join(
        f"    bdtr.rule({_shown(name)}, **{_shown(rules)}),\n"
        for name, rules in protocol.regimes.items()
    )
    site = f'''
# %% [markdown]
# ## Sites
# What each action adds at each site, and at one that was not in the trial.

# %%
blips = bdtr.sites.site_blips(fit, {stage})
blips.table.loc[["(new site)"]]
''' if protocol.trial.site else ""  # fmt: skip
    return f"""# %% [markdown]
# # {title}
#
# Written by `bdtr notebook`; change what you like. Run it from the command line with other values of the
# parameters: `bdtr report this.ipynb -p draws=200 -o page.html`.

# %% tags=["parameters"]
seed = {seed}
draws = 1000  # posterior draws of each of 4 chains at the last stage
propagated = 1000  # draws sent through backward induction

# %%
import bdtr

# %% [markdown]
# ## The data and the trial

# %%
{trial_code(protocol)}

# %%
data = {data}
data.head()

# %%
fit = bdtr.fit(
    trial,
    data,
{chosen}    sampler="{sampler}",
    draws=draws,
    propagated=propagated,
    random_seed=seed,
    progress=False,
)
fit.state

# %% [markdown]
# ## Who is in the analysis
# Nothing is dropped silently: each unit is counted at the first reason that applies.

# %%
fit.flow

# %%
bdtr.balance.balance(fit)

# %% [markdown]
# ## What regimes are worth

# %%
regimes = [
    bdtr.recommended(),
    *bdtr.embedded(fit),
{regimes}]
values = bdtr.value(fit, regimes)
values

# %%
bdtr.plots.value_forest(values.draws, {_shown(protocol.trial.outcome or "payoff")})

# %%
bdtr.comparison.set_of_best(values)

# %% [markdown]
# ## What to do, and how sure we are

# %%
fit.recommend(data)

# %% [markdown]
# The recommended regime, valued on units that it was not learned from:

# %%
bdtr.crossfit(fit, propagated=propagated // 5)
{site}
# %% [markdown]
# ## Do the models look like the data?

# %%
bdtr.predictive.predictive_checks(fit)
"""
