"""Data: DataModules of images (:class:`lit_gen.core.images.ImageBatch`) and of text (:mod:`lit_gen.core.text`)."""

from lit_gen.data.base import ImageDataModule
from lit_gen.data.corpora import NumberText, PlainText, TinyShakespeare
from lit_gen.data.corpus import TextCorpus
from lit_gen.data.folder import ImageFolder
from lit_gen.data.pair_sets import Multi30k, NumberWords, ParallelText
from lit_gen.data.pairs import PairDataModule
from lit_gen.data.sets import CIFAR10, CIFAR100, MNIST, Digits, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "Multi30k",
    "NumberText",
    "NumberWords",
    "PairDataModule",
    "ParallelText",
    "PlainText",
    "TextCorpus",
    "TinyShakespeare",
]
