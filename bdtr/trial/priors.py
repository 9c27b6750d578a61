"""Priors of a stage model: the defaults, how the data scale them, and replacing one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np

from bdtr.results.arguments import is_real
from bdtr.results.errors import BdtrError

__all__ = [
    "LKJ",
    "PRIOR_COLUMNS",
    "Exponential",
    "Gamma",
    "HalfNormal",
    "HalfStudentT",
    "Normal",
    "Prior",
    "StagePriors",
]


PRIOR_COLUMNS = ("stage", "parameter", "prior", "source", "as_written")  # of fit.priors
_LEAST = 1e-100  # scale of a prior
_WIDTH, _OF_SITES = 2.5, 1.0  # SDs of default priors of coefficients, in SDs
_BEND = 0.03  # scale of how far a smooth term is from a line, in SDs


class PriorError(BdtrError, ValueError):
    """A prior that names no parameter of the model, or is of the wrong kind for it."""


@dataclass(frozen=True)
class Prior:
    """Base of the priors; use one of its kinds."""

    def __post_init__(self) -> None:
        for f in fields(self):
            given = getattr(self, f.name)
            value = float(given) if is_real(given) else np.nan
            # Variances are computed with, so squares must not vanish either.
            if not np.isfinite(value) or (
                f.name != "mu" and (value <= 0 or not _LEAST < value < 1 / _LEAST)
            ):
                raise PriorError(
                    f"{type(self).__name__}({f.name}={given!r}): must be finite"
                    + (
                        "."
                        if f.name == "mu"
                        else f" and above 0 (from {_LEAST:g} to {1 / _LEAST:g})."
                    )
                )
            object.__setattr__(self, f.name, value)

    def __str__(self) -> str:
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{type(self).__name__}({values})"

    def times(self, factor: float) -> Self:
        """The prior of a parameter that is so many times as large."""
        return self._changed(dict.fromkeys(("mu", "sigma", "scale"), factor))

    def wider(self, factor: float) -> Self:
        """The same with its scale multiplied."""
        return self._changed(dict.fromkeys(("sigma", "scale"), factor))

    def _changed(self, by: Mapping[str, float]) -> Self:
        own = {f.name: getattr(self, f.name) * by.get(f.name, 1.0) for f in fields(self)}
        return type(self)(**own)

    @property
    def short(self) -> str:
        """The prior with three significant digits, for tables."""
        values = ", ".join(f"{getattr(self, f.name):.3g}" for f in fields(self))
        return f"{type(self).__name__}({values})"


@dataclass(frozen=True)
class Normal(Prior):
    """Normal prior of a coefficient, with mean ``mu`` and standard deviation ``sigma``."""

    mu: float
    sigma: float


@dataclass(frozen=True)
class HalfNormal(Prior):
    """Half-normal prior of a standard deviation, with scale ``sigma``."""

    sigma: float


@dataclass(frozen=True)
class HalfStudentT(Prior):
    """Half-Student-t prior of a standard deviation, ``nu`` degrees of freedom, scale ``sigma``."""

    nu: float
    sigma: float


@dataclass(frozen=True)
class Exponential(Prior):
    """Exponential prior of a standard deviation, with mean ``scale``."""

    scale: float


@dataclass(frozen=True)
class Gamma(Prior):
    """Gamma prior of nu - 1, the degrees of freedom of a t distribution above 1, with shape ``alpha`` and
    rate ``beta``."""

    alpha: float
    beta: float


@dataclass(frozen=True)
class LKJ(Prior):
    """Prior of a correlation matrix, density proportional to its determinant^(eta - 1)."""

    eta: float


_KINDS: dict[str, type[Prior]] = {
    kind.__name__: kind for kind in (Normal, HalfNormal, HalfStudentT, Exponential, LKJ, Gamma)
}
_SD_KINDS = (HalfNormal, HalfStudentT, Exponential)


def prior_from_text(text: str) -> Prior:
    """A prior from its text, ``"HalfNormal(0.2)"`` or as ``str(prior)`` writes it."""
    match = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", text) if isinstance(text, str) else None
    if match is None or match[1] not in _KINDS:
        raise PriorError(
            f"{text!r} is no prior; write for example HalfNormal(0.2). Allowed are {', '.join(_KINDS)}."
        )
    kind = _KINDS[match[1]]
    names = [f.name for f in fields(kind)]
    given: dict[str, float] = {}
    for i, part in enumerate(match[2].split(",")):
        name, equals, value = part.rpartition("=")
        name = name.strip() if equals else names[min(i, len(names) - 1)]
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if name in given or name not in names or not np.isfinite(number):
            break
        given[name] = number
    if sorted(given) != sorted(names) or len(match[2].split(",")) != len(names):
        raise PriorError(f"{text!r}: {kind.__name__} takes the numbers {', '.join(names)}.")
    return kind(**given)


@dataclass(frozen=True)
class GroupPrior:
    """Priors of one grouping factor: an SD per term, the correlations where terms are correlated."""

    sd: tuple[Prior, ...]
    cor: LKJ | None


@dataclass(frozen=True)
class StagePriors:
    """All priors of one stage model; those of coefficients are for columns as they are measured.

    ``gaps`` are those of the log distances between the thresholds of an ordinal outcome, by name; ``nu`` is
    that of degrees of freedom.
    """

    coefficients: tuple[Normal, ...]
    groups: Mapping[str, GroupPrior]
    sigma: Prior | None
    source: Mapping[str, str]
    gaps: Mapping[str, Normal] = field(default_factory=dict)
    nu: Gamma | None = None

    def in_units(
        self,
        scale: np.ndarray,
        groups: Mapping[str, np.ndarray],
        location: np.ndarray,
        spread: float,
    ) -> StagePriors:
        """The same priors for columns and a response in other units.

        Parameters
        ----------
        scale
            What each common column is divided by.
        groups
            The same of the columns of each grouping factor.
        location
            Coefficients, of the divided columns, that are taken out of the response.
        spread
            What the response is divided by.
        """
        coefficients = tuple(
            Normal((p.mu * s - at) / spread, p.sigma * s / spread)
            for p, s, at in zip(self.coefficients, scale, location, strict=True)
        )
        found = {
            name: replace(
                prior,
                sd=tuple(p.times(s / spread) for p, s in zip(prior.sd, groups[name], strict=True)),
            )
            for name, prior in self.groups.items()
        }
        sigma = None if self.sigma is None else self.sigma.times(1.0 / spread)
        return replace(self, coefficients=coefficients, groups=found, sigma=sigma)

    def wider(self, factor: float) -> StagePriors:
        """The same with wider priors of coefficients and of SDs between groups."""
        groups = {
            name: replace(prior, sd=tuple(p.wider(factor) for p in prior.sd))
            for name, prior in self.groups.items()
        }
        coefficients = tuple(p.wider(factor) for p in self.coefficients)
        return replace(self, coefficients=coefficients, groups=groups)

    def table(
        self, terms: Sequence[str], group_terms: Mapping[str, Sequence[str]]
    ) -> list[tuple[str, str, str]]:
        """Rows of (parameter, prior, default or yours)."""
        rows = [(t, p.short) for t, p in zip(terms, self.coefficients, strict=True)]
        for factor, prior in self.groups.items():
            rows += [
                (f"sd({factor})[{t}]", p.short)
                for t, p in zip(group_terms[factor], prior.sd, strict=True)
            ]
            if prior.cor is not None:
                rows.append((f"cor({factor})", prior.cor.short))
        if self.sigma is not None:
            rows.append(("sigma", self.sigma.short))
        if self.nu is not None:
            rows.append(("nu", self.nu.short))
        rows += [(name, prior.short) for name, prior in self.gaps.items()]
        return [(name, prior, self.source.get(name, "default")) for name, prior in rows]


def stage_priors(
    terms: Sequence[str],
    term_scale: np.ndarray,
    groups: Mapping[str, tuple[Sequence[str], np.ndarray, bool]],
    response_mean: float,
    response_sd: float,
    has_sigma: bool,
    replaced: Mapping[str, Prior] | None = None,
    constant: Collection[str] = (),
    of_sites: Collection[str] = (),
    gaps: Mapping[str, float] | None = None,
    has_nu: bool = False,
    smooths: Mapping[str, Sequence[str]] | None = None,
) -> StagePriors:
    """Weakly informative priors scaled by the data, with yours in their place.

    Coefficients: Normal(0, 2.5 sd(y) / sd(x)), where x is what regression on its margins leaves of a column
    (:mod:`bdtr.data.margins`), so that nothing depends on where a variable has its zero; the intercept, for
    columns at their means: Normal(mean(y), 2.5 sd(y)), as in rstanarm (Goodrich et al. 2024; Gelman, Hill
    and Vehtari 2020, *Regression and Other Stories*, 9.5). What is known of sites, their means among it:
    Normal(0, sd(y) / sd(x)), as there are few sites to learn many coefficients from. Standard deviations of
    group effects: HalfNormal(sd(y) / scale(z)), where a two-valued column has its range as scale and any
    other its SD (Gelman 2006 on half-normal and half-t scales); of how far a smooth term is from a line:
    HalfStudentT(3, 0.03 sd(y)), most of it at next to nothing, with a tail that lets bends through. Residual
    SDs: HalfStudentT(3, sd(y)), as in brms (Bürkner 2017). Correlations: LKJ(1), as in brms and rstanarm
    (Lewandowski, Kurowicka and Joe 2009), of group terms as they are measured. Of an ordinal outcome the
    logarithm of the distance between two thresholds: Normal(that of the shares of categories, 1). Degrees of
    freedom nu of a t distribution: nu - 1 is Gamma(2, 0.1) (Juarez and Steel 2010, J. Bus. Econ. Stat.
    28(1)).

    Parameters
    ----------
    terms
        Names of the common columns; "Intercept" is the intercept.
    term_scale
        SD of each common column as measured.
    groups
        Per grouping factor: term names, scale of each term, whether they are correlated.
    response_mean, response_sd
        Mean and SD of the response on the scale of the linear predictor, in outcome units.
    has_sigma
        Whether the family has a residual SD, or a dispersion in its place.
    replaced
        Your priors by name: a term, ``"sd(school)"``, ``"sd(school)[a1[small]]"``,
        ``"cor(school)"`` or ``"sigma"``.
    constant
        Terms that stand in for an intercept, whose means are that of the response; and ``of_sites``, terms
        that are known of sites.
    gaps
        Centres of the log distances between thresholds, by the name of the category above.
    has_nu
        Whether the family has degrees of freedom.
    smooths
        Per smooth term the names of its curves.

    Returns
    -------
    StagePriors

    Raises
    ------
    PriorError
        If a name is no parameter of the model or the prior is of the wrong kind.
    """
    taken = _Replacements(dict(replaced or {}))
    coefficients = []
    for term, scale in zip(terms, term_scale, strict=True):
        width = _OF_SITES if term in of_sites else _WIDTH
        mean = response_mean if term == "Intercept" or term in constant else 0.0
        default = Normal(mean, width * response_sd / (1.0 if term == "Intercept" else scale))
        coefficients.append(taken.get((term,), default, (Normal,)))
    group_priors = {}
    for factor, (names, scales, correlated) in groups.items():
        sd = tuple(
            taken.get(
                (f"sd({factor})[{name}]", f"sd({factor})"),
                HalfNormal(response_sd / scale),
                _SD_KINDS,
            )
            for name, scale in zip(names, scales, strict=True)
        )
        cor = taken.get((f"cor({factor})",), LKJ(1.0), (LKJ,)) if correlated else None
        group_priors[factor] = GroupPrior(sd, cor)
    bend = HalfStudentT(3.0, _BEND * response_sd)
    for term, curves in (smooths or {}).items():
        names = [(f"sd({term})[{curve}]", f"sd({term})") for curve in curves]
        group_priors[term] = GroupPrior(tuple(taken.get(n, bend, _SD_KINDS) for n in names), None)
    sigma = taken.get(("sigma",), HalfStudentT(3.0, response_sd), _SD_KINDS) if has_sigma else None
    nu = taken.get(("nu",), Gamma(2.0, 0.1), (Gamma,)) if has_nu else None
    of_gaps = {
        f"gap[{category}]": taken.get((f"gap[{category}]",), Normal(centre, 1.0), (Normal,))
        for category, centre in (gaps or {}).items()
    }
    taken.check_all_used()
    return StagePriors(tuple(coefficients), group_priors, sigma, taken.source, of_gaps, nu)


class _Replacements:
    """The user's priors, each of which must be used and be of a kind that fits."""

    def __init__(self, priors: dict[str, Prior]):
        self.priors = priors
        self.known: list[str] = []
        self.source: dict[str, str] = {}
        self.used: set[str] = set()

    def get[P: Prior](self, names: tuple[str, ...], default: P, kinds: tuple[type[P], ...]) -> P:
        self.known += names
        for name in names:
            prior = self.priors.get(name)
            if prior is None:
                continue
            if not isinstance(prior, kinds):
                raise PriorError(
                    f"priors[{name!r}]: {prior} does not fit; allowed are "
                    f"{', '.join(kind.__name__ for kind in kinds)}."
                )
            self.used.add(name)
            self.source[names[0]] = "yours"
            return prior
        return default

    def check_all_used(self) -> None:
        unused = [name for name in self.priors if name not in self.used]
        if unused:
            raise PriorError(
                f"priors: {', '.join(map(repr, unused))} is no parameter of this stage. "
                f"Parameters: {', '.join(dict.fromkeys(self.known))}."
            )
