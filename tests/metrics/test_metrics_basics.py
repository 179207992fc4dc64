"""Quantisation, the class count, the cache, the part of real images that is used."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from metrics_processes import Projection, Tensors

from lit_gen.metrics import ModeCount, cache, clean_part, quantize, real_statistics


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_quantize_returns_the_bytes_an_image_was_made_of(value_range: tuple[float, float]) -> None:
    low, high = value_range
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(quantize(pixels.float() / 255 * (high - low) + low, value_range), pixels)


def test_quantize_rounds_and_clamps() -> None:
    images = torch.tensor([-0.2, 0.0, 0.6 / 255, 1.4 / 255, 254.6 / 255, 1.0, 1.7]).view(1, 1, 1, 7)
    assert quantize(images, (0.0, 1.0)).flatten().tolist() == [0, 0, 1, 1, 255, 255, 255]


def test_quantize_takes_half_precision() -> None:
    assert quantize(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16), (-1.0, 1.0)).unique().tolist() == [255]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_quantize_refuses_what_is_no_image(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantize(torch.tensor([[[[bad]]]]), (0.0, 1.0))


def test_modes() -> None:
    metric = ModeCount(torch.tensor([30, 30, 30, 0]))
    metric.update(torch.eye(4)[[0, 0, 1]])
    metric.update(torch.eye(4)[[1]])
    found = metric.compute()
    assert found["modes"] == 2
    real = torch.tensor([30.25, 30.25, 30.25, 0.25]).double() / 91
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(torch.tensor([0.5, 0.5, 0.0, 0.0]).double()),
        torch.distributions.Categorical(real),
    )
    assert found["modes_kl"] == pytest.approx(float(expected), rel=1e-6)


def test_cache_keeps_content_by_key() -> None:
    content = {"tensor": torch.randn(3, 4), "number": 0.25, "empty": torch.empty(0, 3)}
    cache.store("kind", ("name", 1), content)
    found = cache.load("kind", ("name", 1))
    assert torch.equal(found["tensor"], content["tensor"])
    assert found["number"] == 0.25
    assert cache.load("kind", ("name", 2)) is None


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign"])
def test_damaged_cache_is_noticed(damage: str) -> None:
    cache.store("kind", ("name",), {"tensor": torch.zeros(1000)})
    (path,) = cache.cache_dir().iterdir()
    data = bytearray(path.read_bytes())
    if damage == "torn":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        at = data.find(b"\0" * 2000)
        data[at + 1000] = 1
    else:
        data = bytearray(b"not a file of ours")
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="corrupted and will be computed anew"):
        assert cache.load("kind", ("name",)) is None


def test_unwritable_cache_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIT_GEN_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be written"):
        cache.store("kind", ("name",), {"number": 1.0})


def test_clean_part_is_spread_evenly_over_the_split() -> None:
    data = Tensors({"test": torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1)})
    parts = list(clean_part(data, "test", 10, 16))
    assert torch.cat([images for _, images, _ in parts]).flatten().tolist() == list(range(0, 100, 10))
    assert torch.cat([index for index, _, _ in parts]).tolist() == list(range(10))
    assert sum(len(images) for _, images, _ in clean_part(data, "test", None, 16)) == 100
    assert sum(len(images) for _, images, _ in clean_part(data, "test", 1000, 16)) == 100


def test_real_statistics_are_computed_once_for_each_extractor() -> None:
    images = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)
    data, extractor = Tensors({"test": images}), Projection(16)
    first = real_statistics(data, "test", extractor, None, 20, batch_size=7)
    again = real_statistics(data, "test", extractor, None, 20, batch_size=7)
    assert data.reads == 1
    for one, other in zip((*first.moments, first.features), (*again.moments, again.features)):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    features, logits = extractor(images)
    assert torch.allclose(first.moments.covariance, features.double().T.cov(), atol=1e-5)
    assert torch.equal(first.class_counts, logits.argmax(1).bincount(minlength=5))
    assert torch.equal(first.features, features[torch.arange(20) * 50 // 20])
    real_statistics(data, "test", Projection(16, seed=1), None, 20, batch_size=7)
    real_statistics(data, "test", extractor, 30, 20, batch_size=7)
    assert data.reads == 3


def test_real_statistics_of_a_damaged_cache_are_computed_again() -> None:
    data = Tensors({"test": torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)})
    first = real_statistics(data, "test", Projection(16))
    (path,) = cache.cache_dir().iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="corrupted"):
        again = real_statistics(data, "test", Projection(16))
    assert torch.equal(first.moments.covariance, again.moments.covariance)
