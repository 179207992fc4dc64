"""The energy-based family: Boltzmann machines (restricted, general), belief and Hopfield networks, deep energy models."""

from lit_gen.energy.boltzmann_machine import BoltzmannMachine
from lit_gen.energy.capacity_curve import CapacityCurve
from lit_gen.energy.classification_rbm import ClassificationRBM
from lit_gen.energy.dbn import DBN
from lit_gen.energy.deep_energy_model import DeepEnergyModel
from lit_gen.energy.energy_networks import ConvEnergy, MLPEnergy
from lit_gen.energy.hopfield_network import HopfieldNetwork
from lit_gen.energy.joined import Joined
from lit_gen.energy.langevin_training import PersistentLangevin
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.modern_hopfield import ModernHopfieldNetwork
from lit_gen.energy.negative_phase import (
    ContrastiveDivergence,
    NegativePhase,
    ParallelTempering,
    PersistentContrastiveDivergence,
)
from lit_gen.energy.partition import Partition
from lit_gen.energy.rbm import RBM
from lit_gen.energy.score_matching import DenoisingScoreMatching
from lit_gen.energy.units import Bernoulli, Gaussian, Softmax, Units

__all__ = [
    "DBN",
    "RBM",
    "Bernoulli",
    "BipartiteMachine",
    "BoltzmannMachine",
    "CapacityCurve",
    "ClassificationRBM",
    "ContrastiveDivergence",
    "ConvEnergy",
    "DeepEnergyModel",
    "DenoisingScoreMatching",
    "Gaussian",
    "HopfieldNetwork",
    "Joined",
    "MLPEnergy",
    "ModernHopfieldNetwork",
    "NegativePhase",
    "ParallelTempering",
    "Partition",
    "PersistentContrastiveDivergence",
    "PersistentLangevin",
    "Softmax",
    "Units",
]
