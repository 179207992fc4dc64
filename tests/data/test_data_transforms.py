"""Batch transforms against slow references that take one image, one pixel at a time."""

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gen.core.images import ImageBatch
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.data.stores import MemoryStore
from lit_gen.data.transforms import WORD, BatchTransform, bernoulli, crop, flip, resize

KEY = BatchKey(seed=11, start=0, total=16)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(256, (16, 3, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def batch_of(pixels: torch.Tensor) -> ImageBatch:
    return ImageBatch(pixels, torch.zeros(len(pixels), dtype=torch.int64), KEY._replace(total=len(pixels)))


def noise(rows: int = 16) -> RowNoise:
    return RowNoise(KEY._replace(total=rows), rows, "data:test")


def test_ranges(pixels: torch.Tensor):
    unit = BatchTransform()(batch_of(pixels)).image
    symmetric = BatchTransform(symmetric=True)(batch_of(pixels)).image
    assert unit.dtype == symmetric.dtype == torch.float32
    for got, expected in zip(unit.flatten().tolist(), pixels.flatten().tolist()):
        assert got == pytest.approx(expected / 255, abs=1e-7)
    assert torch.allclose(symmetric, 2 * unit - 1, atol=1e-6)
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    assert BatchTransform()(batch_of(ends)).image.flatten().tolist() == [0.0, 1.0]
    assert BatchTransform(symmetric=True)(batch_of(ends)).image.flatten().tolist() == [-1.0, 1.0]


def test_the_stored_images_are_not_overwritten(pixels: torch.Tensor):
    before = pixels.clone()
    for options in ({"symmetric": True}, {"binarize": "dynamic"}, {"binarize": "threshold"}, {"dequantize": True}):
        BatchTransform(flip=True, crop=1, **options)(batch_of(pixels))
    assert torch.equal(pixels, before)


def test_threshold(pixels: torch.Tensor):
    got = BatchTransform(binarize="threshold")(batch_of(pixels)).image
    assert got.flatten().tolist() == [float(x >= 128) for x in pixels.flatten().tolist()]


def test_dequantisation_is_invertible_and_uniform():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(1, 1, 4000, 1).contiguous()
    image = BatchTransform(dequantize=True)(batch_of(pixels)).image
    assert torch.equal((image * 256).floor().byte(), pixels), "a pixel has been rounded to the next grey level"
    rest = (image * 256 - pixels).flatten().double()
    assert image.min() > 0
    assert image.max() < 1
    for q in (0.1, 0.5, 0.9):
        assert rest.quantile(q) == pytest.approx(q, abs=0.005)
    symmetric = BatchTransform(dequantize=True, symmetric=True)(batch_of(pixels)).image
    assert torch.allclose(symmetric, 2 * image - 1, atol=1e-6)
    assert symmetric.abs().max() < 1


def test_dynamic_binarisation_has_the_right_probability_for_every_grey_level():
    n = 20_000
    pixels = torch.arange(256, dtype=torch.uint8).repeat(n, 1).view(n, 1, 16, 16)
    image = BatchTransform(binarize="dynamic")(batch_of(pixels)).image
    assert set(image.unique().tolist()) == {0.0, 1.0}
    mean, p = image.mean(0).flatten().double(), torch.arange(256).double() / 255
    sigma = (p * (1 - p) / n).sqrt()
    assert ((mean - p).abs() <= 5 * sigma + 2**-15).all()
    assert mean[0] == 0
    assert mean[255] == 1


def test_bernoulli_against_one_pixel_at_a_time(pixels: torch.Tensor):
    words = torch.randint(WORD, (16, 27), generator=torch.Generator().manual_seed(3))  # 105 pixels: 27 words of four
    expected = []
    for row, image in zip(words.tolist(), pixels.flatten(1).tolist()):
        fifteen_bits = [(word >> (16 * lane)) & 0x7FFF for word in row for lane in range(4)]
        expected.append([float(u < x * 2**15 / 255) for u, x in zip(fifteen_bits, image)])
    assert bernoulli(pixels, words).flatten(1).tolist() == expected


def test_pixels_of_a_binarised_image_are_independent():
    n = 40_000
    grey = torch.full((n, 1, 2, 2), 128, dtype=torch.uint8)
    image = BatchTransform(binarize="dynamic")(batch_of(grey)).image.flatten(1)
    assert (torch.corrcoef(image.T) - torch.eye(4)).abs().max() < 5 / n**0.5


def test_flip_against_one_image_at_a_time(pixels: torch.Tensor):
    coins = noise().uniform(1, 1, 1).flatten().tolist()
    expected = [
        np.fliplr(image.permute(1, 2, 0)) if c < 0.5 else image.permute(1, 2, 0) for c, image in zip(coins, pixels)
    ]
    got = flip(pixels, noise())
    assert 0 < sum(c < 0.5 for c in coins) < 16
    for image, reference in zip(got, expected):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(reference))


@pytest.mark.parametrize("padding", [1, 3])
def test_crop_against_one_image_at_a_time(pixels: torch.Tensor, padding: int):
    offsets = noise().integers(2 * padding + 1, 2).tolist()
    got = crop(pixels, padding, noise())
    assert got.shape == pixels.shape
    assert len({tuple(o) for o in offsets}) > 3
    for image, original, (top, left) in zip(got, pixels, offsets):
        padded = np.pad(original.numpy(), ((0, 0), (padding, padding), (padding, padding)))
        assert np.array_equal(image.numpy(), padded[:, top : top + 7, left : left + 5])


@pytest.mark.parametrize(
    ("size", "target"), [((28, 28), 32), ((28, 28), 14), ((8, 8), 32), ((30, 20), 16), ((9, 40), 18)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_against_pillow(size: tuple[int, int], target: int, channels: int):
    smooth = torch.rand(4, channels, 5, 5, generator=torch.Generator().manual_seed(2))
    images = (torch.nn.functional.interpolate(smooth, size, mode="bicubic").clamp(0, 1) * 255).byte()
    got = resize(images, target, target)
    height, width = size
    scale = target / min(size)
    inner = (round(width * scale), round(height * scale))
    left, top = (inner[0] - target) // 2, (inner[1] - target) // 2
    for image, mine in zip(images, got):
        planes = [Image.fromarray(plane.numpy()).resize(inner, Image.Resampling.BILINEAR) for plane in image]
        reference = np.stack([np.asarray(p.crop((left, top, left + target, top + target))) for p in planes])
        assert np.abs(mine.numpy().astype(int) - reference.astype(int)).max() <= 1


def test_resize_to_the_same_size_changes_nothing(pixels: torch.Tensor):
    assert torch.equal(resize(pixels, 7, 5), pixels)


def test_static_binarisation_is_one_fixed_draw(pixels: torch.Tensor):
    store = MemoryStore(pixels)
    one = store.binarized(0, "train")
    assert torch.equal(one.images, store.binarized(0, "train").images)
    assert not torch.equal(one.images, store.binarized(1, "train").images)
    assert not torch.equal(one.images, store.binarized(0, "test").images)
    assert set(one.images.unique().tolist()) == {0, 255}
    many = MemoryStore(pixels[:1].repeat(20_000, 1, 1, 1)).binarized(0, "train").images.double().mean(0)
    assert (many - pixels[0]).abs().max() < 255 * 0.5 * 5 / 20_000**0.5
