"""The figure and the table of the README, made from Project STAR.

Run by hand: python docs/make_figures.py
"""

from __future__ import annotations

from pathlib import Path

import bdtr

HERE = Path(__file__).parent


def main() -> None:
    """Fit the study with the seed of the report and write what the README shows."""
    fit = bdtr.fit(
        bdtr.datasets.star_trial(),
        bdtr.datasets.star(),
        missing="exclude",
        off_protocol="exclude",
        random_seed=2026,
    )
    values = bdtr.value(fit)
    figure = bdtr.plots.value_forest(values.draws, "SD of grade-1 scores")
    figure.savefig(HERE / "star_values.svg", metadata={"Date": None})
    print(values.caption)
    print("| regime (kindergarten; grade 1) | mean | SD | 95 % interval |\n|---|---|---|---|")
    for name, row in values.table.iterrows():
        interval = f"{row['lower']:.2f} to {row['upper']:.2f}"
        print(f"| {name} | {row['mean']:.3f} | {row['sd']:.3f} | {interval} |")
    print(bdtr.recommend(fit, bdtr.datasets.star()).actions.groupby(["stage", "action"]).size())


if __name__ == "__main__":
    main()
