"""The data sets: Digits (embedded), MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 (torchvision)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torchvision
from einops import rearrange
from torch import Tensor

from lit_gen.core.errors import UsageError, first_line
from lit_gen.data.base import ImageDataModule
from lit_gen.data.splits import stratified
from lit_gen.data.stores import MemoryStore
from lit_gen.data.transforms import resize

DIGITS = tuple("0123456789")


class InMemoryImages(ImageDataModule):
    """A data set that fits into memory: decoded and resized once, then held as one uint8 tensor for each part."""

    def read_pixels(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """Images uint8 ``[N, C, h, w]`` of any size and labels int64 ``[N]``."""
        raise NotImplementedError(f"{type(self).__name__} must implement read_pixels")

    def read(self, part: Literal["train", "test"]) -> tuple[MemoryStore, Tensor]:
        images, labels = self.read_pixels(part)
        self.saw(part, images.contiguous().numpy(), labels.contiguous().numpy())
        return MemoryStore(resize(images, *self.spec.shape[1:])), labels


class Digits(InMemoryImages):
    """1,797 handwritten digits, 8x8 with 17 grey levels: real data that comes with scikit-learn.

    397 of them, always the same, are the test set (classes in proportion).

    Args:
        val_size: see :class:`ImageDataModule`.
        options: the other options of :class:`ImageDataModule`.

    References:
        Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI machine learning repository, 1998.
    """

    name = "digits"
    native_shape = (1, 8, 8)
    all_classes = DIGITS
    test_size: ClassVar[int] = 397

    def __init__(self, val_size: int = 200, **options: Any) -> None:
        super().__init__(val_size=val_size, **options)

    def read_pixels(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits  # scikit-learn takes a second to import, and only this needs it

        digits = load_digits()
        labels = torch.from_numpy(digits.target.astype(np.int64))
        images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
        in_test = torch.zeros(len(labels), dtype=torch.bool)
        in_test[stratified(labels, self.test_size, "digits test")] = True
        kept = in_test if part == "test" else ~in_test
        return rearrange(images[kept], "n h w -> n 1 h w"), labels[kept]


class TorchvisionImages(InMemoryImages):
    """A data set that torchvision downloads and reads.

    Args:
        root: folder of the data, in torchvision's layout.
        download: fetch the data into ``root`` where it is missing (one process of each node does).
        val_size: see :class:`ImageDataModule`.
        options: the other options of :class:`ImageDataModule`.
    """

    source: ClassVar[type]
    """The torchvision data set."""
    expects: ClassVar[tuple[str, str]]
    """Files that are there when the training and the test part are, relative to the root."""

    def __init__(self, root: str = "data", download: bool = True, val_size: int = 5000, **options: Any) -> None:
        super().__init__(val_size=val_size, **options)
        self.root, self.download = root, download

    def _open(self, part: str, download: bool = False) -> Any:
        return self.source(self.root, train=part == "train", download=download)

    def _missing(self) -> str | None:
        return next((file for file in self.expects if not (Path(self.root) / file).exists()), None)

    def prepare_data(self) -> None:
        """Downloads the data where it is missing and that is allowed.

        Raises:
            UsageError: it is missing and cannot be downloaded.
        """
        missing = self._missing()
        if self.download and missing:
            try:
                self._open("train", download=True)
            except (OSError, RuntimeError) as error:
                raise UsageError(
                    f"no {self.name} in root = {self.root!r} (expected {missing}) and the download failed: "
                    f"{first_line(error)}"
                ) from error

    def read_pixels(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        missing = self._missing()
        if missing:
            hint = "call prepare_data()" if self.download else "set download: true"
            raise UsageError(f"no {self.name} in root = {self.root!r}: expected {missing}; give its folder, or {hint}")
        try:
            data = self._open(part)
        except (OSError, RuntimeError, ValueError, EOFError, AssertionError) as error:
            raise UsageError(f"cannot read {self.name} in root = {self.root!r}: {first_line(error)}") from error
        labels = torch.as_tensor(data.targets, dtype=torch.int64)
        images = torch.as_tensor(data.data)
        pattern = "n h w -> n 1 h w" if images.ndim == 3 else "n h w c -> n c h w"
        return rearrange(images, pattern), labels


class MNIST(TorchvisionImages):
    """70,000 handwritten digits, 1x28x28: 60,000 to train and validate, 10,000 to test.

    References:
        LeCun et al., Gradient-based learning applied to document recognition, Proceedings of the IEEE 1998.
    """

    name = "mnist"
    native_shape = (1, 28, 28)
    all_classes = DIGITS
    source = torchvision.datasets.MNIST
    expects = ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-images-idx3-ubyte")


class FashionMNIST(TorchvisionImages):
    """70,000 pictures of clothing, 1x28x28: 60,000 to train and validate, 10,000 to test.

    References:
        Xiao et al., Fashion-MNIST, 2017, arXiv:1708.07747.
    """

    name = "fashion_mnist"
    native_shape = (1, 28, 28)
    all_classes = tuple(torchvision.datasets.FashionMNIST.classes)
    source = torchvision.datasets.FashionMNIST
    expects = ("FashionMNIST/raw/train-images-idx3-ubyte", "FashionMNIST/raw/t10k-images-idx3-ubyte")


class CIFAR10(TorchvisionImages):
    """60,000 photographs of ten kinds of things, 3x32x32: 50,000 to train and validate, 10,000 to test.

    References:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    name = "cifar10"
    native_shape = (3, 32, 32)
    all_classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    source = torchvision.datasets.CIFAR10
    expects = ("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch")


class CIFAR100(TorchvisionImages):
    """60,000 photographs of a hundred kinds of things, 3x32x32, with fine labels; divided as CIFAR-10 is.

    References:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    name = "cifar100"
    native_shape = (3, 32, 32)
    all_classes = tuple(str(label) for label in range(100))
    source = torchvision.datasets.CIFAR100
    expects = ("cifar-100-python/train", "cifar-100-python/test")
