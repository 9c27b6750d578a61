"""Project STAR: a bundled extract, its codebook beside it, and its trial."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from bdtr.trial.trial import Trial

__all__ = ["star", "star_trial"]

_TEXT = ("id", "school", "school_1", "classroom_k", "classroom_1", "a1", "a2")
_NUMBERS = ("black", "age", "lunch", "y_k", "y_1")


def star() -> pd.DataFrame:
    """Read the kindergarten entrants of Project STAR, followed to the end of grade 1.

    Returns
    -------
    pandas.DataFrame
        6,325 rows, one per pupil, sorted by ``id``, and 13 columns. The first seven are text, the
        others numbers; missing entries are NaN.

        - ``id``: pupil
        - ``school``, ``school_1``: school in kindergarten and in grade 1
        - ``classroom_k``, ``classroom_1``: teacher in kindergarten and in grade 1
        - ``a1``, ``a2``: class type in kindergarten and in grade 1: regular, small or aide; ``a2``
          is missing for pupils who left
        - ``female``, ``black``: 1 yes, 0 no
        - ``age``: years on 1 September 1985
        - ``lunch``: 1 if on free or reduced-price lunch in kindergarten, 0 if not
        - ``y_k``, ``y_1``: mean of the reading and mathematics scores of the grade, in SDs of all
          STAR pupils of that grade

    Notes
    -----
    Teacher identifiers are reconstructed in the source and split or merge some classes. The
    codebook, ``bdtr/datasets/star.md``, lists this and other defects.

    References
    ----------
    C. M. Achilles and others (2008), Tennessee's Student Teacher Achievement Ratio (STAR) project,
    Harvard Dataverse, doi:10.7910/DVN/SIWH9F; taken from the R data sets ``AER::STAR`` and
    ``mlmRev::star``.

    Examples
    --------
    >>> from bdtr.datasets import star
    >>> star().shape
    (6325, 13)
    """
    import pandas as pd  # here and not above, so that `import bdtr` stays quick

    dtypes = dict.fromkeys(_TEXT, "str") | {"female": "int64"} | dict.fromkeys(_NUMBERS, "float64")
    with files(__package__).joinpath("star.csv.gz").open("rb") as file:
        return pd.read_csv(
            file,
            compression="gzip",
            dtype=dtypes,
            keep_default_na=False,
            na_values=[""],
        )


def star_trial() -> Trial:
    """The two-stage trial of Project STAR: class type in kindergarten, then in grade 1.

    Returns
    -------
    bdtr.Trial
        Stage ``a1`` in {regular, small, aide}, randomised within school; stage ``a2`` in {regular,
        aide} for pupils not in small classes, who stay in small ones. Payoff ``y_1``, site ``school``.

    Examples
    --------
    >>> [stage.action for stage in star_trial().stages]
    ['a1', 'a2']
    """
    from bdtr.trial.trial import Stage, Trial

    first = Stage(
        "a1",
        actions=["regular", "small", "aide"],
        formula="female + black + age + a1 * lunch + (1 + a1 | school)",
        delivered_in="classroom_k",
    )
    second = Stage(
        "a2",
        actions=["regular", "aide", "small"],
        feasible={"a1 == 'small'": ["small"], "a1 != 'small'": ["regular", "aide"]},
        eligible="school_1 == school",
        formula="female + black + age + lunch + a1 + a2 * y_k + (1 + a2 | school)",
        delivered_in="classroom_1",
    )
    return Trial([first, second], outcome="y_1", unit="id", site="school")
