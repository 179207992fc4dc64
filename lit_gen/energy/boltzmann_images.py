"""What a general Boltzmann machine shows once it has weights: samples, completed, denoised and reconstructed images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.core.averages import AveragedModule
from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise
from lit_gen.energy.fully_connected import FullyConnected
from lit_gen.energy.sequential_sweeps import Scan, SequentialSweeps


class BoltzmannImages(AveragedModule):
    """Sampling from a :class:`FullyConnected` machine whose visible units are the pixels of binary images.

    Attributes:
        machine: the machine.
        base_rate: ``[K]``, probabilities of independent units from which chains start.
        hidden_units, temperature, scan, positive_sweeps, sample_steps, posterior_steps, pixels: as in
            :class:`lit_gen.energy.BoltzmannMachine`.
    """

    machine: FullyConnected
    base_rate: Tensor
    hidden_units: int
    temperature: float
    scan: Scan
    positive_sweeps: int
    sample_steps: int
    posterior_steps: int
    pixels: Literal["mean", "sample"]

    # ---------------------------------------------------------------- chains

    @property
    def hidden_numbers(self) -> Tensor:
        """Numbers of the hidden units, which come after the visible ones."""
        return torch.arange(self.spec.dim, self.machine.units, device=self.device)

    def sweeps(self, state: Tensor, **options: Any) -> SequentialSweeps:
        """Chains of the machine that begin at a state ``[N, K]``; options as in :class:`SequentialSweeps`."""
        options = {"beta": 1 / self.temperature, "scan": self.scan} | options
        return SequentialSweeps(self.machine.weight.detach(), self.machine.bias.detach(), state, **options)

    def infer(self, visible: Tensor, noise: RowNoise) -> Tensor:
        """Visible values and a sample of the hidden units given them, ``[N, K]``: Gibbs sweeps from a random start."""
        hidden = (noise.uniform(self.hidden_units) < 0.5).to(visible)
        sweeps = self.sweeps(torch.cat([visible, hidden], 1), units=self.hidden_numbers)
        for _ in range(self.positive_sweeps):
            sweeps.sweep(noise)
        return sweeps.state

    def mean_field(self, visible: Tensor) -> Tensor:
        """Visible values and the means of the factorial q(h) that is nearest to p(h | v), by coordinate ascent, ``[N, K]``."""
        hidden = visible.new_full((len(visible), self.hidden_units), 0.5)
        sweeps = self.sweeps(torch.cat([visible, hidden], 1), units=self.hidden_numbers)
        for _ in range(self.positive_sweeps):
            sweeps.mean_field_sweep()
        return sweeps.state

    # ---------------------------------------------------------------- images

    def start(self, noise: RowNoise) -> Tensor:
        """States ``[N, K]`` of independent units: pixels at their means over the data, hidden units at 1/2."""
        return (noise.uniform(self.machine.units) < self.base_rate).to(self.base_rate)

    def to_images(self, units: Tensor) -> Tensor:
        """The visible part of ``[N, K]`` as images ``[N, C, H, W]``."""
        return units[:, : self.spec.dim].reshape(-1, *self.spec.shape)

    def shown(self, sweeps: SequentialSweeps) -> Tensor:
        """Images of the chains as they are: each pixel's probability given all other units, or its state."""
        return self.to_images(sweeps.log_odds().sigmoid() if self.pixels == "mean" else sweeps.state)

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return self.trajectory(n, [self.sample_steps], generator)[0]

    @torch.no_grad()
    def trajectory(self, n: int, steps: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Free chains seen after the given numbers of sweeps (increasing), ``[len(steps), n, C, H, W]``."""
        noise = RowNoise.of(generator, n, self.device)
        sweeps, done, seen = self.sweeps(self.start(noise)), 0, []
        for step in steps:
            for _ in range(step - done):
                sweeps.sweep(noise)
            done = max(done, step)
            seen.append(self.shown(sweeps))
        return torch.stack(seen)

    def complete(self, image: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fills hidden pixels by Gibbs sampling with the others clamped; those are returned as given.

        Shape:
            image: ``[B, C, H, W]``; mask: ``[B, 1, H, W]``, 1 = hidden; result ``[B, C, H, W]``, the posterior mean (over the
            second half of the sweeps) or a sample of it, as ``pixels`` says.

        Raises:
            UsageError: the mask's shape does not fit the image.
        """
        expected = [image.shape[0], 1, *image.shape[-2:]]
        require(
            list(mask.shape) == expected, "shape of mask", list(mask.shape), f"{expected}, 1 where a pixel is hidden"
        )
        noise = RowNoise.of(generator, len(image), self.device)
        hidden = mask.bool().expand_as(image)
        start = self.start(noise)
        start[:, : self.spec.dim] = torch.where(hidden, self.to_images(start), image).flatten(1)
        clamped = torch.zeros_like(start, dtype=torch.bool)
        clamped[:, : self.spec.dim] = ~hidden.flatten(1)
        return torch.where(hidden, self.posterior(self.sweeps(start, clamped=clamped), noise), image)

    def denoise(self, image: Tensor, flip: float, generator: torch.Generator | None = None) -> Tensor:
        r"""Restores images whose pixels were each flipped with probability ``flip``, ``[B, C, H, W]``.

        That is p(v | noisy image): a noisy pixel is a field of :math:`\pm \log((1 - flip) / flip)` on its unit. The mean
        of it or a sample, as in :meth:`complete`.

        Raises:
            UsageError: flip is not between 0 and 1.
        """
        require(0 < flip < 1, "flip", flip, "0 < flip < 1")
        noise = RowNoise.of(generator, len(image), self.device)
        start = self.start(noise)
        field = torch.zeros_like(start)
        field[:, : self.spec.dim] = (2 * image.flatten(1) - 1) * math.log((1 - flip) / flip)
        start[:, : self.spec.dim] = image.flatten(1)
        return self.posterior(self.sweeps(start, field=field), noise)

    @torch.no_grad()
    def posterior(self, sweeps: SequentialSweeps, noise: RowNoise) -> Tensor:
        """Images after ``posterior_steps`` sweeps: the mean over the second half of them, or the last state."""
        total, burn_in = 0.0, self.posterior_steps // 2
        for step in range(self.posterior_steps):
            sweeps.sweep(noise)
            if self.pixels == "mean" and step >= burn_in:
                total = total + sweeps.log_odds().sigmoid()  # given all others: less variance than the states have
        return self.to_images(sweeps.state if self.pixels == "sample" else total / (self.posterior_steps - burn_in))

    @torch.no_grad()
    def reconstruct(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """Mean field down and up: hidden means given the image, then pixels' means given those alone, ``[B, C, H, W]``."""
        state = self.mean_field(image.flatten(1))
        state[:, : self.spec.dim] = self.base_rate[: self.spec.dim]
        sweeps = self.sweeps(state, units=torch.arange(self.spec.dim, device=self.device))
        for _ in range(self.positive_sweeps):
            sweeps.mean_field_sweep()
        return self.to_images(sweeps.state)

    @torch.no_grad()
    def filters(self) -> Tensor:
        """Couplings of each hidden unit (of each pixel where there is none) to the pixels, ``[n, C, H, W]``."""
        weight = self.machine.weight
        return self.to_images(weight[self.spec.dim :] if self.hidden_units else weight)
