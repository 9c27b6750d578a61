"""The command line: parse, call, write; no statistics."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # errors in one line, not in boxes
    help="Bayesian dynamic treatment regimes for multilevel and multisite trials.",
)

_STUDIES = ("star",)
_STAR_TITLE = "Project STAR: class type in kindergarten and grade 1"

Seed = Annotated[int | None, typer.Option(help="Random seed (2026, or that of the file).")]
Data = Annotated[
    Path | None, typer.Option("--data", help="Data of a trial's file: .csv, .tsv or .dta.")
]


@app.callback()
def main() -> None:
    """Bayesian dynamic treatment regimes for multilevel and multisite trials."""


@app.command()
def report(
    study: Annotated[
        str, typer.Argument(help="A bundled study (star), a trial's file (.toml), or a notebook.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    data: Data = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value for a notebook; may be repeated."),
    ] = None,
    seed: Seed = None,
    draws: Annotated[int | None, typer.Option(help="Draws of each of 4 chains (1000).")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Sampler of the last stage: pymc (default), plain or direct.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(help="Leave out cross-fitting, refits with other priors, second opinion."),
    ] = False,
    pdf: Annotated[bool, typer.Option(help="Write a PDF as well (needs the extra pdf).")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Fit a study and write its posterior report as one HTML file, or run a notebook and write it."""
    from bdtr.reports.notebooks import is_notebook

    chosen = {"random_seed": seed, "draws": draws, "sampler": sampler}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if is_notebook(study):
        _refuse("a notebook takes its parameters by -p", data=data, quick=quick, pdf=pdf, **chosen)
        _notebook(study, output, parameters or [], quiet)
        return
    _refuse("-p is for notebooks", parameter=parameters)
    from bdtr.reports.choices import check_choices
    from bdtr.reports.document import report_files

    with _or_exit(2):
        report_files(output, pdf, [p for p in (data, study) if p and os.path.exists(p)], "-o")
    frame, words = _study(study, data)
    with _or_exit(2):
        check_choices(**words.report)
    shown = {**words.report, "pdf": pdf, **({"thorough": False} if quick else {})}
    _report(study, frame, replace(words, report=shown), chosen, output, data, quiet)


@app.command()
def notebook(
    study: Annotated[str, typer.Argument(help="A bundled study (star) or a trial's file (.toml).")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".ipynb, .py or .md to write.")],
    data: Data = None,
) -> None:
    """Write a notebook for a trial, ready to run and to edit."""
    from bdtr.reports.starter import starter_file, starter_notebook

    with _or_exit(2):
        starter_file(output)
    _, words = _study(study, data)
    read, imports = "bdtr.datasets.star()", "import bdtr"
    if data is not None:
        read = f"read_data({str(data.resolve())!r}, trial)"
        imports += "\nfrom bdtr.data import read_data"
    with _or_exit():
        path = starter_notebook(output, words, read, words.report.get("title"), imports)
    typer.echo(f"wrote {path}")


@contextmanager
def _or_exit(code: int = 1) -> Iterator[None]:
    """Say an error that the user can mend, without its trace, and stop; 2: the arguments are wrong."""
    from bdtr.results.errors import BdtrError

    try:
        yield
    except (BdtrError, ImportError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(code) from None


def _refuse(why: str, **given: object) -> None:
    named = [
        name.removeprefix("random_") for name, value in given.items() if value not in (None, False)
    ]
    if named:
        raise typer.BadParameter(f"--{named[0]}: {why}.")


def _notebook(source: str, output: Path, given: list[str], quiet: bool) -> None:
    from bdtr.reports.notebooks import read_parameters, run_notebook

    with _or_exit():
        values = read_parameters(given)
        page, executed = run_notebook(source, output, parameters=values, progress=not quiet)
    typer.echo(f"wrote {page} and {executed}")


def _study(study: str, data: Path | None):
    """The data of a study and what its file says."""
    from bdtr.data.datafiles import read_data
    from bdtr.trial.protocol import Protocol, read

    if study.endswith(".toml"):
        if data is None:
            raise typer.BadParameter(f"{study}: give the data as well, --data FILE.")
        with _or_exit(2):
            protocol = read(study)
            return read_data(data, protocol.trial), protocol
    if study not in _STUDIES:
        raise typer.BadParameter(
            f"{study!r}: allowed are {', '.join(_STUDIES)}, a trial's file (.toml) or a notebook."
        )
    _refuse("bundled studies have their data", data=data)
    import bdtr

    words = Protocol(
        bdtr.datasets.star_trial(),
        fit={"missing": "exclude", "off_protocol": "exclude"},
        report={"title": _STAR_TITLE},
    )
    return bdtr.datasets.star(), words


def _report(study, frame, words, chosen, output: Path, data, quiet: bool) -> None:
    import bdtr
    from bdtr.data.check import check_again
    from bdtr.reports.choices import check_against, compared

    settings: dict[str, Any] = {"random_seed": 2026, **words.fit, **chosen}
    with _or_exit(2):  # what does not fit the data, before anything is sampled
        regimes = [bdtr.rule(name, **rules) for name, rules in words.regimes.items()]
        excluded = {n: settings[n] for n in ("missing", "off_protocol") if n in settings}
        if excluded.get("missing") == "impute":  # which is checked where it is done
            excluded["missing"] = "exclude"
        checked = check_again(words.trial, frame, **excluded, whole=True)
        check_against(checked, compared(checked, regimes), **words.report)
    with _or_exit():
        fitted = bdtr.fit(words.trial, frame, progress=not quiet, **settings)
    command = f"bdtr report {shlex.quote(study)} -o {shlex.quote(output.name)}"
    command += f" --data {shlex.quote(str(data))}" if data else ""
    command += f" --seed {settings['random_seed']}"
    for name in ("draws", "sampler"):
        command += f" --{name} {chosen[name]}" if name in chosen else ""
    command += " --quick" if words.report.get("thorough") is False else ""
    command += " --pdf" if words.report["pdf"] else ""
    command = command.encode("utf-8", "backslashreplace").decode()
    with _or_exit():
        bdtr.report(
            fitted, output, regimes=regimes, texts=words.texts, command=command, progress=not quiet,
            **words.report,
        )  # fmt: skip
    beside = [".json", *([".pdf"] if words.report["pdf"] else [])]
    written = ", ".join([str(output), *(output.with_suffix(end).name for end in beside)])
    typer.echo(f"{fitted.state}\nwrote {written}")
