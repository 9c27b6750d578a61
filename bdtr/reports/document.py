"""The posterior report of a fit: its contents as JSON, and from them alone the page."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bdtr.backward.fitted import Fit
from bdtr.backward.regimes import Regime
from bdtr.reports.blocks import Part
from bdtr.reports.case import Case
from bdtr.reports.choices import Choices, check_against, check_choices
from bdtr.reports.page import page
from bdtr.reports.parts.actions import actions
from bdtr.reports.parts.answer import answer, question
from bdtr.reports.parts.checklist import checklist
from bdtr.reports.parts.diagnostics import diagnostics, predictive
from bdtr.reports.parts.models import models
from bdtr.reports.parts.provenance import making
from bdtr.reports.parts.results import effects, values
from bdtr.reports.parts.sensitivity import doubts
from bdtr.reports.parts.sites import sites
from bdtr.reports.parts.trial import design, exclusions
from bdtr.reports.pdf import pdf as as_pdf, require_typst
from bdtr.results.arguments import a_fit, truth
from bdtr.results.files import OutputError, check_apart, check_output, check_page, write_whole

__all__ = ["report", "report_files"]

_PARTS = (
    answer, question, values, actions, sites, effects, design, models, diagnostics, predictive, doubts,
    exclusions, making,
)  # fmt: skip


def report(
    fit: Fit,
    path: str | os.PathLike,
    *,
    title: str | None = None,
    regimes: Sequence[Regime] = (),
    reference: str | None = None,
    population: str = "sample",
    interval: float = 0.95,
    margin: float | None = None,
    sure: float = 0.95,
    clear: float = 0.80,
    thresholds: Sequence[float] = (0.0, 0.05, 0.1, 0.15, 0.2),
    over: Mapping[str, Sequence[str]] | None = None,
    planned: Mapping[str, Mapping[object, float]] | None = None,
    min_cell: int = 10,
    texts: Mapping[str, str] | None = None,
    command: str | None = None,
    override: str | None = None,
    thorough: bool = True,
    pdf: bool = False,
    progress: bool = False,
) -> Path:
    """Write the posterior report of a fit: one HTML file that needs no network, and its numbers as JSON.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    path
        HTML file to write; the numbers go into the file of the same name that ends in ``.json``. Both are
        written, or none is.
    title
        Heading of the page.
    regimes
        Regimes to compare beside the recommended one and those embedded in the trial.
    reference
        Name of the regime that others are compared with; left out: the first embedded one.
    population
        Population of the values, as in :func:`bdtr.value`.
    interval
        Probability of the equal-tailed intervals.
    margin
        Loss of payoff that does not matter, in units of the outcome.
    sure, clear
        P(optimal) above which a choice counts as sure, and below which as not clear.
    thresholds
        Effect sizes t for P(g > t).
    over
        By stage, one or two history columns over which P(optimal) is shown; left out: those that
        interact with the action.
    planned
        By stage, planned weights of the actions; for each unit the feasible ones are made to add up to 1.
    min_cell
        Sites and cells with fewer units are not shown.
    texts
        What only the authors can say, by the names in ``bdtr.trial.protocol.TEXTS``; what is missing is
        marked on the page.
    command
        The command that makes this report again.
    override
        A reason in words to show recommendations although the state is ``refused``.
    thorough
        Whether to cross-fit the recommended regime, to refit with other priors and to give a second opinion.
    pdf
        Whether to write a PDF beside the page as well (needs the extra ``pdf``).
    progress
        Whether to show progress of what has to be run.

    Returns
    -------
    pathlib.Path
        The HTML file.

    Raises
    ------
    ValueError
        If a text, a regime or a stage is not known.
    ImportError
        If ``pdf`` is asked for and typst is missing.

    Examples
    --------
    >>> bdtr.report(fit, "star.html", thorough=False).name
    'star.html'
    """
    a_fit(fit)
    check_choices(
        title=title, command=command, override=override, texts=texts, regimes=regimes,
        thresholds=thresholds, over=over, planned=planned, interval=interval, sure=sure, clear=clear,
        margin=margin, min_cell=min_cell, reference=reference,
    )  # fmt: skip
    for name, given in (("thorough", thorough), ("pdf", pdf), ("progress", progress)):
        truth(name, given)
    places = report_files(path, pdf)
    if pdf:
        require_typst()
    choices = Choices(
        title, command, interval, margin, sure, clear, min_cell, thresholds, reference, population,
        tuple(regimes), over, planned, dict(texts or {}), override, thorough, progress,
    )  # fmt: skip
    case = Case(fit, choices)
    check_against(
        fit.require_data("a report"), case.regimes, reference=reference, population=population, over=over,
        planned=planned,
    )  # fmt: skip
    contents = _contents(case)
    numbers = json.dumps(contents, ensure_ascii=False, indent=1, allow_nan=False)
    made: list[str | bytes] = [page(contents, case.figures), numbers]
    if pdf:
        made.append(as_pdf(contents, case.figures))
    # The page is moved into place last: where it is new, so are the others.
    write_whole(dict(reversed(list(zip(places, made, strict=True)))))
    return places[0]


def report_files(
    path: str | os.PathLike,
    pdf: bool = False,
    inputs: Iterable[str | os.PathLike] = (),
    argument: str = "path",
) -> list[Path]:
    """The files of a report, page first, if all of them can be written.

    Parameters
    ----------
    path
        The page; the numbers go into the file of the same name that ends in ``.json``.
    pdf
        Whether there is a PDF.
    inputs
        Files that must stay as they are.
    argument
        What the user calls ``path``, for messages.

    Raises
    ------
    OutputError
        If one of them is an input, a folder, or something that no report wrote.
    """
    inputs = list(inputs)
    html = check_page(path, argument, inputs)
    beside = [".json", *([".pdf"] if pdf else [])]
    found = [html, *(check_output(html.with_suffix(e), argument, (e,), inputs) for e in beside)]
    check_apart(found, argument)
    for one in found[1:]:
        if one.exists() and not _is_report(one):
            raise OutputError(
                f"{argument} {path}: would replace {one}, which no report wrote. Choose another name."
            )
    return found


def _is_report(path: Path) -> bool:
    """Whether the numbers or the PDF beside a page are those of a report, or empty."""
    try:
        content = path.read_bytes()
        if path.suffix == ".pdf" or not content:
            return not content or (content.startswith(b"%PDF") and b"Typst" in content)
        held = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(held, dict) and {"title", "state", "parts"} <= set(held)


def _contents(case: Case) -> dict[str, Any]:
    parts = [part for make in _PARTS if (part := make(case)) is not None]
    last: list[Part] = [checklist(case, parts)]
    state = case.fit.state
    return {
        "title": case.choices.title or "Posterior report",
        "state": state.level,
        "reasons": list(state.reasons),
        "override": case.choices.override,
        "parts": [part.plain() for part in [*parts[:-1], *last, parts[-1]]],
    }
