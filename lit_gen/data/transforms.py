"""From uint8 pixels to a model's input, a whole batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gen.core.images import ImageBatch
from lit_gen.core.random import RowNoise

WORD = 2**63 - 1


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Scales until the picture covers (height, width), bilinear with antialiasing, and cuts out the centre.

    Shape:
        images: uint8 ``[N, C, h, w]``; result: uint8 ``[N, C, height, width]``.
    """
    h, w = images.shape[-2:]
    scale = max(height / h, width / w)
    inner = (max(height, round(h * scale)), max(width, round(w * scale)))
    if inner != (h, w):
        chunks = [
            F.interpolate(chunk.float(), inner, mode="bilinear", antialias=True).round_().clamp_(0, 255).byte()
            for chunk in images.split(2048)
        ]
        images = torch.cat(chunks) if chunks else images.new_empty(0, images.shape[1], *inner)
    top, left = (inner[0] - height) // 2, (inner[1] - width) // 2
    return images[..., top : top + height, left : left + width].contiguous()


def random_words(noise: RowNoise, pixels: int) -> Tensor:
    """One 63-bit word for every four of so many pixels, int64 ``[B, ceil(pixels / 4)]``."""
    return noise.integers(WORD, -(-pixels // 4))


def fifteen_bits(words: Tensor, shape: torch.Size) -> Tensor:
    """Integers 0 .. 2^15-1, one for each pixel, four out of every word: a third of the time of one float a pixel.

    Args:
        words: int64 ``[B, ceil(C * H * W / 4)]``, uniform on 0 .. 2^63-2; overwritten.
        shape: (B, C, H, W).

    Returns:
        float32 of this shape.
    """
    lanes = words.view(torch.int16).bitwise_and_(0x7FFF)
    return lanes[:, : shape[1:].numel()].reshape(shape).float()


def bernoulli(images: Tensor, words: Tensor) -> Tensor:
    r"""Pixels drawn as :math:`b \sim \mathrm{Bernoulli}(x / 255)`, to 2^-15 in the probability and exactly for 0 and 255.

    Args:
        images: uint8 ``[B, C, H, W]``.
        words: see :func:`fifteen_bits`.

    Returns:
        float32 ``[B, C, H, W]``, 0 or 1.

    References:
        Salakhutdinov and Murray, On the quantitative analysis of deep belief networks, ICML 2008, section 5.
    """
    # In place, since a comparison that returns booleans and their conversion cost more than all the rest.
    return fifteen_bits(words, images.shape).lt_(images.float().mul_(2**15 / 255))


def dequantize(images: Tensor, words: Tensor) -> Tensor:
    r"""Pixels :math:`x + u` with u uniform on the middles of 2^15 equal parts of [0, 1): the sum is exact in float32.

    With a finer u the sum is rounded, now and then up to the next grey level and to the closed end of the range, where a
    logit is infinite.

    Args:
        images: uint8 ``[B, C, H, W]``.
        words: see :func:`fifteen_bits`.

    Returns:
        float32 ``[B, C, H, W]`` in (0, 256).

    References:
        Theis et al., A note on the evaluation of generative models, ICLR 2016, section 3.1.
    """
    return fifteen_bits(words, images.shape).add_(0.5).mul_(2**-15).add_(images)


def flip(images: Tensor, noise: RowNoise) -> Tensor:
    """Mirrors each image ``[B, C, H, W]`` left to right with probability 1/2."""
    mirrored = noise.uniform(1, 1, 1) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def crop(images: Tensor, padding: int, noise: RowNoise) -> Tensor:
    """Shifts each image ``[B, C, H, W]`` by up to ``padding`` pixels in both directions; black comes in at the border.

    References:
        He et al., Deep residual learning, CVPR 2016, section 4.2 (padding 4 on CIFAR-10).
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (padding,) * 4)
    offset = noise.integers(2 * padding + 1, 2)
    rows = offset[:, 0, None] + torch.arange(height, device=images.device)
    columns = offset[:, 1, None] + torch.arange(width, device=images.device)
    row_number = torch.arange(images.shape[0], device=images.device)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[row_number, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
    return shifted.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class BatchTransform:
    r"""Turns a batch of uint8 images into the float32 images that a model sees.

    In this order: crop, flip, then one of dynamic binarisation, threshold (128 and above is one) or uniform
    dequantisation :math:`(x + u) / 256`, then the scaling to the range. All noise is drawn per row of the global batch
    from its key.

    Args:
        symmetric: range [-1, 1] instead of [0, 1].
        binarize: "none", "dynamic" or "threshold" ("static" is done before, once for all).
        dequantize: see above.
        flip: mirror at random.
        crop: largest shift in pixels.

    References:
        Burda et al., Importance weighted autoencoders, ICLR 2016, section 5.1 (dynamic binarisation).
    """

    symmetric: bool = False
    binarize: str = "none"
    dequantize: bool = False
    flip: bool = False
    crop: int = 0

    def __call__(self, batch: ImageBatch) -> ImageBatch:
        """Converts ``batch.image`` from uint8 to float32 ``[B, C, H, W]``, on the device where it is."""
        pixels = batch.image
        if self.crop:
            pixels = crop(pixels, self.crop, self._noise(batch, "crop"))
        if self.flip:
            pixels = flip(pixels, self._noise(batch, "flip"))
        if self.binarize == "dynamic":
            image, top = bernoulli(pixels, random_words(self._noise(batch, "binarize"), pixels[0].numel())), 1.0
        elif self.binarize == "threshold":
            image, top = pixels.float().ge_(128), 1.0
        elif self.dequantize:
            image, top = dequantize(pixels, random_words(self._noise(batch, "dequantize"), pixels[0].numel())), 256.0
        else:
            image, top = pixels.float(), 255.0
        if self.symmetric:
            image = image.sub_(top / 2).div_(top / 2)
        elif top != 1.0:
            image = image.div_(top)
        return batch._replace(image=image)

    def _noise(self, batch: ImageBatch, name: str) -> RowNoise:
        return RowNoise(batch.key, batch.image.shape[0], f"data:{name}", batch.image.device)
