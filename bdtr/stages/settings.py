"""How a trial is fitted, and where its random numbers come from: checked once, kept with the fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bdtr.results.arguments import is_whole, one_of
from bdtr.results.errors import BdtrError
from bdtr.trial.trial import Trial

__all__ = ["FitError", "Settings", "integrates", "make_settings"]

_SAMPLERS = ("pymc", "plain", "direct")
# Streams of random numbers beside those of the stages.
_PURPOSES = (
    "values",
    "cross-fitting",
    "effect sizes",
    "risk",
    "new trial",
    "confounding",
    "assignment",
    "opinion",
    "predictive checks",
    "spread",
    "imputation",
    "smoothness",
    "states",
)
_TUNE, _TUNE_INTEGRATED = 1000, 400  # warm-up draws: few are enough where there are no funnels
_PROPAGATED = 1000
_MOST = 1_000_000  # draws of a chain
_FIRST = 1 << 21  # number of a child of the seed that no stage gets to


class FitError(BdtrError, RuntimeError):
    """Something that this fit cannot do, and what to do instead."""


@dataclass(frozen=True)
class Settings:
    """How a trial was fitted."""

    random_seed: int
    chains: int = 4
    draws: int = 1000
    tune: int = 1000
    propagated: int = 1000
    sampler: str = "pymc"
    missing: str = "error"
    off_protocol: str = "error"
    quick: bool = False  # part of a check: the model itself is not checked again
    imputations: int = 0  # completed data sets, each with its share of the draws
    part: int | None = None  # number of the completed data set, of a fit to one of these
    common: int | None = None  # seed of group effects that fits to parts of the units share
    prior_width: float = 1.0  # factor of the widths of priors of coefficients and group SDs

    def stream(self, purpose: int | str, random_seed: int | None = None) -> np.random.SeedSequence:
        """Source of randomness of a stage (from 0) or of another purpose: none shares its numbers.

        Passes of a stage under different policies share it, so that contrasts gain no noise. The seed is that
        of the fit, or another one.
        """
        key = _FIRST + _PURPOSES.index(purpose) if isinstance(purpose, str) else purpose
        entropy = self.random_seed if random_seed is None else _seed(random_seed)
        keys = (key,) if self.part is None else (key, self.part)
        return np.random.SeedSequence(entropy, spawn_key=keys)

    @property
    def shares(self) -> int:
        """How many data sets share the draws."""
        return self.imputations if self.imputations and self.part is None else 1

    def of_part(self, d: int) -> Settings:
        """Those of the fit to completed data set d."""
        count = self.imputations
        return replace(self, draws=self.draws // count, propagated=self.propagated // count, part=d)


def integrates(trial: Trial) -> bool:
    """Whether coefficients and group effects of the last stage can be integrated out."""
    return trial.stages[-1].model is None


def make_settings(
    trial,
    missing,
    off_protocol,
    sampler,
    chains,
    draws,
    tune,
    propagated,
    random_seed,
    imputations=0,
) -> Settings:
    """Settings that have been checked, or an error before any sampling."""
    if not isinstance(trial, Trial):
        raise FitError(f"trial: must be a bdtr.Trial, got {type(trial).__name__}.")
    one_of("sampler", sampler, _SAMPLERS, FitError)
    for name, value in (("chains", chains), ("draws", draws)):
        if not is_whole(value) or not 1 <= value <= _MOST:
            raise FitError(f"{name}={value!r}: must be a whole number from 1 to {_MOST:,}.")
    if tune is None:
        tune = _TUNE_INTEGRATED if sampler == "pymc" and integrates(trial) else _TUNE
    if not is_whole(tune) or not 0 <= tune <= _MOST:
        raise FitError(f"tune={tune!r}: must be a whole number from 0 to {_MOST:,}, or None.")
    parts = max(imputations, 1)
    draws = -(-draws // parts) * parts
    if propagated is None:
        propagated = _propagated(chains * parts, draws // parts)
    if not is_whole(propagated) or propagated < 1:
        raise FitError(f"propagated={propagated!r}: must be a whole number above 0, or None.")
    if propagated % (chains * parts) or (chains * draws) % propagated:
        of = f"chains * imputations = {chains * parts}" if imputations else f"chains = {chains}"
        raise FitError(
            f"propagated={propagated}: must divide chains * draws = {chains * draws} and be a "
            f"multiple of {of}."
        )
    if random_seed is None:
        random_seed = int(np.random.SeedSequence().generate_state(1)[0])
    return Settings(
        _seed(random_seed),
        int(chains),
        int(draws),
        int(tune),
        int(propagated),
        sampler,
        missing,
        off_protocol,
        imputations=imputations,
    )


def _seed(value: Any) -> int:
    if not is_whole(value) or not 0 <= value < 1 << 128:
        raise FitError(
            f"random_seed={value!r}: must be a whole number from 0 to 2**128 - 1, or None."
        )
    return int(value)


def _propagated(chains: int, draws: int) -> int:
    """About 1,000 draws: of each chain the largest divisor of its draws up to that, or above it where that is
    far less."""
    wanted = max(1, _PROPAGATED // chains)
    divisors = [d for d in range(1, draws + 1) if draws % d == 0]
    below = max(d for d in divisors if d <= wanted)
    enough = below == draws or 2 * below >= wanted
    return chains * (below if enough else min(d for d in divisors if d > wanted))
