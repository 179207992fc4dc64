"""Networks that turn 8-bit images into the features and class scores on which sample quality is measured."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn

from lit_gen.core.errors import UsageError, first_line
from lit_gen.metrics.cache import tensors_hash

DOWNLOAD_TIMEOUT = 30.0
"""Seconds without an answer after which the download of the Inception weights is given up."""


class Extractor(nn.Module):
    """A frozen network in evaluation mode, which no ``state_dict``, optimizer or ``train()`` of its owner reaches.

    Subclasses set ``name`` and implement :meth:`extract`.

    Args:
        network: the network; it follows ``to(device)`` but is not a registered submodule.
        feature_dim: D, number of features.
        num_classes: K, number of class scores.
    """

    name: str = "extractor"

    def __init__(self, network: nn.Module, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        # In a tuple the network is no submodule: 96 MB of Inception weights must not land in every checkpoint.
        self._frozen = (network.eval().requires_grad_(False),)
        self.feature_dim, self.num_classes = feature_dim, num_classes
        self.weights_hash = tensors_hash(network.state_dict())

    @property
    def network(self) -> nn.Module:
        """The frozen network."""
        return self._frozen[0]

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.network.parameters()).device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Extractor":
        self.network._apply(fn)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "Extractor":
        return super().train(False)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of uint8 images on the network's device."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and unnormalised class scores.

        Args:
            images: uint8; see :func:`lit_gen.metrics.quantize`.

        Shape:
            images ``[N, C, H, W]``; features ``[N, D]``, logits ``[N, K]``, both float32.

        Raises:
            ValueError: the images are not uint8 with four dimensions.
        """
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(f"images must be uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")
        with torch.autocast(self.device.type, enabled=False):
            features, logits = self.extract(images.to(self.device))
        return features.float(), logits.float()


class InceptionExtractor(Extractor):
    """torch-fidelity's port of the 2015 TensorFlow Inception, on which published FID, IS and KID are computed.

    Features are the 2,048 of the last pooling layer, class scores those without the bias of the last layer, as the
    reference implementations have it. Grey images are repeated to three channels.

    Args:
        weights_path: file of the weights; torch-fidelity's own download (kept in torch's hub cache) where None.

    Raises:
        UsageError: the weights cannot be read or downloaded.

    References:
        Szegedy et al., Rethinking the Inception architecture, CVPR 2016. Obukhov et al., torch-fidelity, 2020,
        https://github.com/toshas/torch-fidelity.
    """

    name = "inception"

    def __init__(self, weights_path: str | None = None) -> None:
        network = _inception(load_inception_weights(weights_path))
        super().__init__(network, feature_dim=2048, num_classes=network.fc.out_features)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "InceptionExtractor":
        """The extractor with weights that are in memory already."""
        extractor = cls.__new__(cls)
        network = _inception(state)
        Extractor.__init__(extractor, network, feature_dim=2048, num_classes=network.fc.out_features)
        return extractor

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[1] == 1:
            images = repeat(images, "n 1 h w -> n c h w", c=3)
        return self.network(images)


def load_inception_weights(path: str | None) -> dict[str, Tensor]:
    """The weights' tensors by name, from the file or from torch-fidelity's download.

    Raises:
        UsageError: the file is missing or is not one of Inception weights, or there is no file and no network.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    if path is None:
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            return torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, map_location="cpu", progress=False)
        except Exception as error:
            raise UsageError(
                f"the Inception weights could not be downloaded from {URL_INCEPTION_V3} ({first_line(error)}): "
                "download them elsewhere and set feature_extractor_weights_path, or set extractor: lenet"
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)
    if not Path(path).is_file():
        raise UsageError(f"feature_extractor_weights_path = {path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    except Exception as error:
        raise UsageError(f"feature_extractor_weights_path = {path} is not a PyTorch weights file") from error


def _inception(state: dict[str, Tensor]) -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # The constructor reads a file and draws initial weights from the global generator: give it memory, and isolate it.
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    with torch.random.fork_rng(devices=[]):
        try:
            return FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=file
            )
        except RuntimeError as error:
            raise UsageError(
                f"the file given is not one of torch-fidelity's Inception weights ({first_line(error)})"
            ) from error
