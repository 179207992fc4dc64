"""A file of Inception weights where the real ones cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def write_random_inception(path: Path) -> str:
    """Writes random weights whose features vary: batch norm has the statistics of a few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        network = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=str(path))
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    nn.init.normal_(network.fc.weight, std=0.3)
    network.train()
    with torch.no_grad():
        network(blurred_noise(8, 0.9, seed=0))
    torch.save(network.state_dict(), path)
    return str(path)


def blurred_noise(n: int, power: float, seed: int) -> Tensor:
    """Blurred noise of random brightness and contrast, uint8 ``[n, 3, 16, 16]``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    fine = nn.functional.interpolate(coarse, size=16, mode="bilinear") ** power
    contrast = torch.rand(n, 1, 1, 1, generator=generator)
    return (255 * (contrast * fine + (1 - contrast) * torch.rand(n, 1, 1, 1, generator=generator))).to(torch.uint8)
