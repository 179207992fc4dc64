"""Generative adversarial networks."""

from lit_gen.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from lit_gen.gan.gan import GAN
from lit_gen.gan.layers import MinibatchDiscrimination, VirtualBatchNorm
from lit_gen.gan.networks import Discriminator, Generator, MLPDiscriminator, MLPGenerator
from lit_gen.gan.objectives import Hinge, LeastSquares, Minimax, NonSaturating, Objective, Wasserstein
from lit_gen.gan.penalties import R1, Constraint, GradientPenalty, Penalty, WeightClipping
from lit_gen.gan.resnet import ResNetDiscriminator, ResNetGenerator
from lit_gen.gan.semi_supervised_gan import SemiSupervisedGAN
from lit_gen.gan.semi_supervised_networks import SemiSupervisedClassifier, SemiSupervisedGenerator
from lit_gen.gan.tricks import FeatureMatching, HistoricalAveraging, OneSidedLabelSmoothing, Trick

__all__ = [
    "GAN",
    "R1",
    "Constraint",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "Discriminator",
    "FeatureMatching",
    "Generator",
    "GradientPenalty",
    "Hinge",
    "HistoricalAveraging",
    "LeastSquares",
    "MLPDiscriminator",
    "MLPGenerator",
    "MinibatchDiscrimination",
    "Minimax",
    "NonSaturating",
    "Objective",
    "OneSidedLabelSmoothing",
    "Penalty",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SemiSupervisedClassifier",
    "SemiSupervisedGAN",
    "SemiSupervisedGenerator",
    "Trick",
    "VirtualBatchNorm",
    "Wasserstein",
    "WeightClipping",
]
