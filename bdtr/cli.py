"""The command line: parse, call, write; no statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Bayesian dynamic treatment regimes for multilevel and multisite trials.",
)

_STUDIES = ("star",)


@app.callback()
def main() -> None:
    """Bayesian dynamic treatment regimes for multilevel and multisite trials."""


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="A bundled study: star.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    seed: Annotated[int, typer.Option(help="Random seed.")] = 2026,
    draws: Annotated[int, typer.Option(help="Draws of each of 4 chains.")] = 1000,
    sampler: Annotated[
        str, typer.Option(help="Sampler of the last stage: pymc, plain or direct.")
    ] = "pymc",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Fit a study and write its posterior report as one HTML file."""
    if study not in _STUDIES:
        raise typer.BadParameter(f"{study!r}: allowed are {', '.join(_STUDIES)}.")
    if not output.parent.is_dir():
        raise typer.BadParameter(f"-o {output}: the folder {output.parent} does not exist.")
    import bdtr

    fitted = bdtr.fit(
        bdtr.datasets.star_trial(),
        bdtr.datasets.star(),
        missing="exclude",
        off_protocol="exclude",
        sampler=sampler,
        draws=draws,
        propagated=min(1000, 4 * draws),
        random_seed=seed,
        progress=not quiet,
    )
    title = "Project STAR: class type in kindergarten and grade 1"
    command = f"bdtr report {study} -o {output.name} --seed {seed}"
    if draws != 1000 or sampler != "pymc":
        command += f" --draws {draws} --sampler {sampler}"
    bdtr.report(fitted, output, title=title, command=command, progress=not quiet)
    typer.echo(f"{fitted.state}\nwrote {output}")
