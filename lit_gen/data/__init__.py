"""Image data: DataModules that yield :class:`lit_gen.core.images.ImageBatch`."""

from lit_gen.data.base import ImageDataModule
from lit_gen.data.folder import ImageFolder
from lit_gen.data.sets import CIFAR10, CIFAR100, MNIST, Digits, FashionMNIST

__all__ = ["CIFAR10", "CIFAR100", "MNIST", "Digits", "FashionMNIST", "ImageDataModule", "ImageFolder"]
