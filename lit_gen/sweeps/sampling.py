"""Samplers and the pruner of a sweep, for Optuna.

A draw depends on the seed and on the trial's number, never on who asks: any number of workers draws what one would
have drawn, and no two of them the same.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from lit_gen.sweeps.file import Sweep

STARTUP = 10
"""Random trials before the first that a bayes sweep derives from the others."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


def sampler(sweep: Sweep, seed: int, number: int) -> BaseSampler:
    """The sampler of one trial.

    Args:
        sweep: its method and parameters.
        seed: of the sweep.
        number: the trial's number.
    """
    if sweep.method == "bayes" and number >= STARTUP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # constant_liar: running trials count as bad ones, or parallel workers would draw the same
            return TPESampler(
                seed=_derived(seed, number, ""), n_startup_trials=STARTUP, multivariate=True, constant_liar=True
            )
    return NumberedSampler(sweep, seed, number)


def first_draws(sweep: Sweep, seed: int, number: int) -> dict[str, Any]:
    """The draws of a trial that needs no other trial: any of grid and random, the first of bayes."""
    own = NumberedSampler(sweep, seed, number)
    return {parameter.name: own.draw(parameter.name, parameter.distribution()) for parameter in sweep.parameters}


class NumberedSampler(BaseSampler):
    """Trial n of a grid is point n; trial n of a random sweep has random numbers of its own.

    Args:
        sweep: its method and parameters.
        seed: of the sweep.
        number: the trial's number.
    """

    def __init__(self, sweep: Sweep, seed: int, number: int) -> None:
        self.seed, self.number = seed, number
        self.point = sweep.grid[number] if sweep.method == "grid" else None

    def draw(self, name: str, distribution: BaseDistribution) -> Any:
        if self.point is not None:
            return self.point[name]
        if distribution.single():
            return RandomSampler(0).sample_independent(None, None, name, distribution)
        return RandomSampler(_derived(self.seed, self.number, name)).sample_independent(None, None, name, distribution)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: BaseDistribution) -> Any:
        return self.draw(name, distribution)


def _derived(seed: int, number: int, name: str) -> int:
    return int(np.random.SeedSequence([seed, number, *name.encode()]).generate_state(1)[0])


def pruner(sweep: Sweep) -> BasePruner:
    """What stops unpromising trials: W&B's hyperband is asynchronous successive halving."""
    if sweep.halving is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=sweep.halving.min_iter, reduction_factor=sweep.halving.eta)


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """The trial's draw of a parameter; the one it has already, where it was asked before."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
