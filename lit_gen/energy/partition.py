"""How a machine's log Z is estimated for a test: a part of a model's config."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise, run_seed, seeded_generator
from lit_gen.energy.likelihood import ais, enumerable, exact_log_z, raise_log_prob, reverse_ais
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.samplers import LogZ, schedule


class Partition:
    """log Z, exactly where a layer can be enumerated, otherwise by annealing up and down.

    Every process computes the same number from the same generators, which costs nothing beside one that waits for the other.

    Args:
        method: "exact" sums over the states of the smaller layer; "ais" anneals; "auto" is exact where that layer has at most
            2^20 states.
        steps: number of inverse temperatures above 0, spaced as those of the authors; None for their 14,500.
        chains: number of importance weights, in each direction.
        reverse: whether to anneal downwards as well, from the ends of Gibbs chains that begin at data.
        burn_in: length of those chains.
        raise_examples: number of examples for :meth:`raise_log_prob`; 0 for none.
        raise_chains: reverse chains for each of them.

    Raises:
        UsageError: an argument is out of range.

    References:
        Salakhutdinov and Murray, On the Quantitative Analysis of Deep Belief Networks, ICML 2008.
    """

    def __init__(
        self,
        method: Literal["auto", "exact", "ais"] = "auto",
        steps: int | None = None,
        chains: int = 100,
        reverse: bool = True,
        burn_in: int = 1000,
        raise_examples: int = 0,
        raise_chains: int = 5,
    ) -> None:
        require(method in ("auto", "exact", "ais"), "method", method, "auto, exact or ais")
        require(steps is None or steps >= 1, "steps", steps, "null or 1 or more")
        require(chains >= 2, "chains", chains, "2 or more")
        require(burn_in >= 1, "burn_in", burn_in, "1 or more")
        require(raise_examples >= 0, "raise_examples", raise_examples, "0 or more")
        self.method, self.steps, self.chains, self.reverse = method, steps, chains, reverse
        require(raise_chains >= 1, "raise_chains", raise_chains, "1 or more")
        self.burn_in, self.raise_examples, self.raise_chains = burn_in, raise_examples, raise_chains
        self.made: dict[LogZ, dict[str, Any]] = {}  # how each estimate was made

    def betas(self) -> Tensor:
        """Inverse temperatures from 0 to 1, float64 ``[steps + 1]``."""
        authors = schedule()
        if self.steps is None:
            return authors
        place = np.linspace(0, len(authors) - 1, self.steps + 1)
        return torch.from_numpy(np.interp(place, np.arange(len(authors)), authors.numpy()))

    def estimate(self, machine: BipartiteMachine, mean: Tensor, data_states: Tensor) -> dict[str, LogZ]:
        """log Z of the machine under ``exact``, or under ``forward`` and, where wanted, ``reverse``.

        Args:
            machine: the machine.
            mean: mean visible state of the data, for the base rates.
            data_states: where the chains for ``reverse`` begin, repeated where they are fewer than the chains.

        Shape:
            mean: ``[visible.dim]``; data_states: ``[n, visible.dim]``.

        Raises:
            UsageError: method "exact" of a machine that cannot be enumerated.
        """
        if self.method == "exact" or (self.method == "auto" and enumerable(machine)):
            return {"exact": self._time("enumeration", lambda: _certain(exact_log_z(machine)))}
        path, betas = TemperedPath(machine, mean), self.betas()
        # log weights are sums over thousands of steps: 16 bits would not do
        with torch.autocast(machine.weight.device.type, enabled=False):
            result = {"forward": self._time("AIS", lambda: self._upwards(path, betas))}
            if self.reverse:
                result["reverse"] = self._time("reverse AIS", lambda: self._downwards(path, betas, data_states))
        return result

    def _upwards(self, path: TemperedPath, betas: Tensor) -> LogZ:
        return ais(path, betas, self.chains, self._generator(path.machine, "forward"))

    def _downwards(self, path: TemperedPath, betas: Tensor, data_states: Tensor) -> LogZ:
        generator = self._generator(path.machine, "reverse")
        v = data_states.repeat(-(-self.chains // len(data_states)), 1)[: self.chains]
        v = path.machine.gibbs(v, self.burn_in, RowNoise.of(generator, self.chains, v.device))
        return reverse_ais(path, betas, v, generator)

    def raise_log_prob(self, machine: BipartiteMachine, mean: Tensor, v: Tensor) -> Tensor:
        """Conservative log p(v) ``[B]`` of the annealing model; see :func:`lit_gen.energy.likelihood.raise_log_prob`."""
        generator = self._generator(machine, "raise")
        with torch.autocast(machine.weight.device.type, enabled=False):
            return raise_log_prob(TemperedPath(machine, mean), v, self.betas(), self.raise_chains, generator)

    def about(self, log_z: LogZ) -> dict[str, Any]:
        """How an estimate that :meth:`estimate` returned was made, for ``result.json``; nats and seconds."""
        return self.made[log_z]

    def _time(self, method: str, estimate: Callable[[], LogZ]) -> LogZ:
        begin = time.perf_counter()
        log_z = estimate()
        about = {"method": method, "log_z": log_z.value, "seconds": time.perf_counter() - begin}
        if method != "enumeration":
            about |= {
                "temperatures": len(self.betas()), "chains": self.chains, "lower": log_z.lower, "upper": log_z.upper,
                "log_z_stderr": log_z.stderr, "ess": log_z.ess,
            }  # fmt: skip
        if method == "reverse AIS":
            about["burn_in"] = self.burn_in
        self.made[log_z] = about
        return log_z

    def _generator(self, machine: BipartiteMachine, name: str) -> torch.Generator:
        return seeded_generator(run_seed(), "ais", name, device=machine.weight.device)


def _certain(value: float) -> LogZ:
    return LogZ(value, value, value, 0.0, float("inf"))
