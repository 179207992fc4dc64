"""FID, IS and KID with one file of randomly initialised Inception weights, beside torch-fidelity, in one process and two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch_fidelity
from metrics_processes import in_two_processes, measure_inception
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

N = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights whose features vary: batch norm has the statistics of a few images."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
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
        network(images(8, 0.9, seed=0))
    torch.save(network.state_dict(), path)
    return str(path)


def images(n: int, power: float, seed: int) -> Tensor:
    """Blurred noise of random brightness and contrast, uint8 ``[n, 3, 16, 16]``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    fine = nn.functional.interpolate(coarse, size=16, mode="bilinear") ** power
    contrast = torch.rand(n, 1, 1, 1, generator=generator)
    return (255 * (contrast * fine + (1 - contrast) * torch.rand(n, 1, 1, 1, generator=generator))).to(torch.uint8)


class Images(torch.utils.data.Dataset):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_against_torch_fidelity(weights: str, tmp_path: Path) -> None:
    fake, real = images(N, 1.0, seed=1), images(N, 2.5, seed=2)
    expected = torch_fidelity.calculate_metrics(
        input1=Images(fake), input2=Images(real), fid=True, isc=True, kid=True, kid_subset_size=N, batch_size=N,
        feature_extractor_weights_path=weights, cache=False, cuda=False, save_cpu_ram=True, verbose=False,
    )  # fmt: skip
    expected = {
        "fid": expected["frechet_inception_distance"],
        "is": expected["inception_score_mean"],
        "kid": expected["kernel_inception_distance_mean"],
    }
    assert expected["is"] > 1.05  # a score of one would be equal by chance
    assert expected["kid"] > 1e-3
    one = measure_inception(weights, real, fake, 16)
    assert {name: one[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    first, second = in_two_processes(measure_inception, tmp_path / "two", weights, real, fake, 16)
    assert first == second
    assert {name: first[name] for name in one} == pytest.approx(one, rel=1e-6)
