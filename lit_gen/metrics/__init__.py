"""Measures of sample quality, as torchmetrics Metrics whose value does not depend on the number of processes."""

from lit_gen.metrics.classifier import DomainClassifier, LeNet, LeNetExtractor
from lit_gen.metrics.extractors import Extractor, InceptionExtractor
from lit_gen.metrics.features import FeatureStore
from lit_gen.metrics.frechet import FeatureMoments, FrechetDistance, Moments, frechet_distance
from lit_gen.metrics.inception_score import InceptionScore, MeanStd
from lit_gen.metrics.kernel import KernelDistance, kernel_distance
from lit_gen.metrics.modes import ClassCounts, ModeCount
from lit_gen.metrics.prdc import PrecisionRecall, precision_recall
from lit_gen.metrics.quality import METRICS, QualityMetrics, metric_name
from lit_gen.metrics.quantize import quantize
from lit_gen.metrics.real import RealStatistics, clean_part, real_statistics

__all__ = [
    "METRICS",
    "ClassCounts",
    "DomainClassifier",
    "Extractor",
    "FeatureMoments",
    "FeatureStore",
    "FrechetDistance",
    "InceptionExtractor",
    "InceptionScore",
    "KernelDistance",
    "LeNet",
    "LeNetExtractor",
    "MeanStd",
    "ModeCount",
    "Moments",
    "PrecisionRecall",
    "QualityMetrics",
    "RealStatistics",
    "clean_part",
    "frechet_distance",
    "kernel_distance",
    "metric_name",
    "precision_recall",
    "quantize",
    "real_statistics",
]
