"""FID, IS and KID with one file of randomly initialised Inception weights, beside torch-fidelity, in one process and two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch_fidelity
from metrics_processes import in_two_processes, measure_inception
from torch import Tensor

from tests.random_inception import blurred_noise, write_random_inception

N = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_random_inception(tmp_path_factory.mktemp("inception") / "random.pth")


class Images(torch.utils.data.Dataset):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_against_torch_fidelity(weights: str, tmp_path: Path) -> None:
    fake, real = blurred_noise(N, 1.0, seed=1), blurred_noise(N, 2.5, seed=2)
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
