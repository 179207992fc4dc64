"""Measures of images and texts, as torchmetrics Metrics whose value does not depend on the number of processes."""

from typing import Any

from lit_gen.metrics.classifier import DomainClassifier, LeNet, LeNetExtractor
from lit_gen.metrics.extractors import Extractor, InceptionExtractor
from lit_gen.metrics.features import FeatureStore
from lit_gen.metrics.frechet import FeatureMoments, FrechetDistance, Moments, frechet_distance
from lit_gen.metrics.inception_score import InceptionScore, MeanStd
from lit_gen.metrics.kernel import KernelDistance, kernel_distance
from lit_gen.metrics.modes import ClassCounts, ModeCount
from lit_gen.metrics.perplexity import Perplexity
from lit_gen.metrics.prdc import PrecisionRecall, precision_recall
from lit_gen.metrics.quality import METRICS, QualityMetrics, metric_name
from lit_gen.metrics.quantize import quantize
from lit_gen.metrics.real import RealStatistics, clean_part, real_statistics
from lit_gen.metrics.rouge import Rouge, textbook_rouge_l, textbook_rouge_n
from lit_gen.metrics.textbook_bleu import textbook_bleu

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
    "Perplexity",
    "PrecisionRecall",
    "QualityMetrics",
    "RealStatistics",
    "Rouge",
    "TranslationScores",
    "clean_part",
    "frechet_distance",
    "kernel_distance",
    "metric_name",
    "precision_recall",
    "quantize",
    "real_statistics",
    "textbook_bleu",
    "textbook_rouge_l",
    "textbook_rouge_n",
]


def __getattr__(name: str) -> Any:
    # sacreBLEU takes a while to import, and few runs translate
    if name == "TranslationScores":
        from lit_gen.metrics.translation import TranslationScores

        return TranslationScores
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
