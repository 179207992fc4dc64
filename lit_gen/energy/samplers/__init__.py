"""Samplers on any unnormalised log density: states ``[C, ...]`` -> ``[C]``, vectorised over C chains.

A kernel is ``kernel(x, generator) -> Transition``; :func:`run_chains` repeats it. All randomness comes from the generator that
is passed in, on the device of the states.

    kernel = Metropolis(log_density, GaussianRandomWalk(0.5))
    chains = run_chains(kernel, x, steps=1000, generator=generator, burn_in=200)
    chains.draws.mean((0, 1)), chains.acceptance, split_rhat(chains.draws)
"""

from lit_gen.energy.samplers.annealing import Annealed, ais, linear_schedule, reverse_ais, schedule
from lit_gen.energy.samplers.diagnostics import autocorrelation, effective_sample_size, split_rhat
from lit_gen.energy.samplers.estimates import LogZ, log_mean_exp, log_z, reverse_log_z
from lit_gen.energy.samplers.gibbs import BlockGibbs, SequentialGibbs
from lit_gen.energy.samplers.importance import Estimate, Weighted, importance_sampling
from lit_gen.energy.samplers.langevin import MALA, ULA, log_density_and_score
from lit_gen.energy.samplers.metropolis import BitFlip, GaussianRandomWalk, Independence, Metropolis, Proposal
from lit_gen.energy.samplers.paths import GeometricPath, Path
from lit_gen.energy.samplers.tempering import ParallelTempering
from lit_gen.energy.samplers.transitions import Chains, Kernel, LogDensity, Transition, run_chains

__all__ = [
    "MALA",
    "ULA",
    "Annealed",
    "BitFlip",
    "BlockGibbs",
    "Chains",
    "Estimate",
    "GaussianRandomWalk",
    "GeometricPath",
    "Independence",
    "Kernel",
    "LogDensity",
    "LogZ",
    "Metropolis",
    "ParallelTempering",
    "Path",
    "Proposal",
    "SequentialGibbs",
    "Transition",
    "Weighted",
    "ais",
    "autocorrelation",
    "effective_sample_size",
    "importance_sampling",
    "linear_schedule",
    "log_density_and_score",
    "log_mean_exp",
    "log_z",
    "reverse_ais",
    "reverse_log_z",
    "run_chains",
    "schedule",
    "split_rhat",
]
