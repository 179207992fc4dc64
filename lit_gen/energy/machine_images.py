"""The images of a bipartite machine: samples, chains over time, reconstruction, completion, denoising, filters."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_gen.core.averages import AveragedModule
from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.units import Bernoulli


class MachineImages(AveragedModule):
    """A model whose distribution over images is that of a bipartite machine.

    A subclass creates the attributes.

    Attributes:
        machine: the machine.
        data_mean: mean visible state of the training data, ``[visible.dim]``; NaN before training.
        sample_steps: length of the chains of :meth:`sample`.
        posterior_steps: length of the chains of :meth:`complete` and :meth:`denoise`.
        pixels: whether these methods return the probabilities of the last step, as the papers' figures do, or states.
    """

    value_ranges: ClassVar[tuple[tuple[float, float], ...]] = ((0.0, 1.0),)

    machine: BipartiteMachine
    data_mean: Tensor
    sample_steps: int
    posterior_steps: int
    pixels: Literal["mean", "sample"]

    def state(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """Visible states ``[B, visible.dim]`` of images ``[B, C, H, W]``."""
        return self.machine.visible.of_pixels(image.flatten(1))

    def image(self, v: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` of visible states or of their means."""
        return self.machine.visible.to_pixels(v).unflatten(-1, self.spec.shape).clamp(*self.spec.value_range)

    def free_energy(self, image: Tensor) -> Tensor:
        """F(v) in nats, ``[B]``: -log p(v) up to the constant log Z."""
        return self.machine.free_energy(self.state(image))

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return self.trajectory(n, [self.sample_steps], generator)[0]

    def trajectory(self, n: int, steps: list[int], generator: torch.Generator | None = None) -> Tensor:
        """Fantasy particles over time: n chains, begun at the data's base rates, after the given numbers of Gibbs steps.

        Args:
            n: number of chains.
            steps: increasing numbers of steps v -> h -> v, each 1 or more.
            generator: source of randomness on the model's device.

        Shape:
            result ``[len(steps), n, C, H, W]``.
        """
        noise = RowNoise.of(generator, n, self.device)
        with self.evaluating():
            v = TemperedPath(self.machine, self.data_mean).start(noise)
            mean, seen = torch.empty_like(v), []
            for length in torch.tensor(steps).diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist():
                v = self.machine.gibbs(v, length, noise, visit=mean.copy_)
                seen.append(self.image(v if self.pixels == "sample" else mean))
            return torch.stack(seen)

    def reconstruct(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """Images of E[v | E[h | v]], ``[B, C, H, W]``."""
        with self.evaluating():
            return self.image(self.machine.visible_mean(self.machine.hidden_mean(self.state(image, label))))

    def complete(self, image: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images with their hidden pixels filled in by Gibbs sampling while the known ones stay clamped.

        Args:
            image: ``[B, C, H, W]``.
            mask: ``[B, 1, H, W]``; 1 where the pixel is hidden.
            generator: source of randomness on the model's device.

        Returns:
            ``[B, C, H, W]``: known pixels as given, hidden ones as their mean given the known ones (averaged over the second
            half of the chain) or as states, by ``pixels``.
        """
        known = self.known_places(~mask.bool().expand_as(image).flatten(1))
        return torch.where(mask.bool(), self.posterior(image, generator, known=known), image)

    def known_places(self, known: Tensor) -> Tensor:
        """Which places of the state ``[B, visible.dim]`` belong to known pixels ``[B, C H W]``."""
        return self.machine.visible.places(known)

    def denoise(self, image: Tensor, flip: float, generator: torch.Generator | None = None) -> Tensor:
        """The images without the noise by which every binary pixel was flipped with probability ``flip``.

        A pixel that was seen on adds log((1 - flip) / flip) to its unit's field, one that was seen off takes it away: the
        chain samples from p(v | noisy image).

        Raises:
            UsageError: the visible units are not binary, or ``flip`` is not in (0, 1).
        """
        require(isinstance(self.machine.visible, Bernoulli), "visible units", type(self.machine.visible).__name__,
                "Bernoulli, to denoise")  # fmt: skip
        require(0 < flip < 1, "flip", flip, "0 < flip < 1")
        bias = (2 * self.state(image) - 1) * math.log((1 - flip) / flip) / self.machine.beta
        return self.posterior(image, generator, bias=bias)

    def posterior(self, image: Tensor, generator: torch.Generator | None, **condition: Tensor) -> Tensor:
        """Images drawn by Gibbs sampling under a condition, ``known`` or ``bias`` of :meth:`BipartiteMachine.gibbs`."""
        noise = RowNoise.of(generator, len(image), self.device)
        with self.evaluating():
            v = self.state(image)
            if "known" in condition:
                v = torch.where(condition["known"], v, TemperedPath(self.machine, self.data_mean).start(noise))
            burn_in = self.posterior_steps // 2
            if burn_in:
                v = self.machine.gibbs(v, burn_in, noise, **condition)
            total, kept = torch.zeros_like(v), self.posterior_steps - burn_in
            v = self.machine.gibbs(v, kept, noise, visit=total.add_, **condition)
            return self.image(v if self.pixels == "sample" else total / kept)

    def filters(self) -> Tensor:
        """The weights of each hidden unit as an image, ``[hidden, C, H, W]``."""
        weights = self.machine.weight.detach().T
        return self.machine.visible.to_pixels(weights).unflatten(-1, self.spec.shape)
