"""The images of a deep belief network: samples, chains over time, reconstruction, completion, filters."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gen.core.averages import AveragedModule
from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise
from lit_gen.energy.belief_network import BeliefNetwork
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.units import Units


class BeliefImages(AveragedModule):
    """A model whose distribution over images is that of a deep belief network; a subclass creates the attributes.

    While layers are still being added, the network is the one of the layers so far.

    Attributes:
        network: the network.
        conditional: whether it has labels.
        sample_steps: length of the chains of :meth:`sample`.
        posterior_steps: length of the chains of :meth:`complete`.
        pixels: whether images are probabilities, as in the papers' figures, or states.
    """

    network: BeliefNetwork
    conditional: bool
    sample_steps: int
    posterior_steps: int
    pixels: Literal["mean", "sample"]

    @property
    def units(self) -> Units:
        """The units of the image."""
        visible = self.network.layers[0].machine.visible
        return visible.parts[0] if self.network.num_classes and len(self.network.layers) == 1 else visible

    def state(self, image: Tensor) -> Tensor:
        """Visible states ``[B, dim]`` of images ``[B, C, H, W]``."""
        return self.units.of_pixels(image.flatten(1))

    def image(self, v: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` of visible states or of their means."""
        return self.units.to_pixels(v).unflatten(-1, self.spec.shape).clamp(*self.spec.value_range)

    def free_energy(self, image: Tensor) -> Tensor:
        """That of the machine at the top, after an upward pass of means, in nats, ``[B]``.

        Not -log p(v) up to a constant, unless there is only one layer; comparable while the layers below stay the same.
        """
        return self.network.free_energy(self.network.recognise(self.state(image))[-1])

    # ---------------------------------------------------------------- sampling

    def sample(self, n: int, *, label: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Images from Gibbs chains at the top and one pass down; the label unit is clamped where labels are given."""
        return self.trajectory(n, [self.sample_steps], generator, label)[0]

    def trajectory(
        self, n: int, steps: list[int], generator: torch.Generator | None = None, label: Tensor | None = None
    ) -> Tensor:
        """Images from n chains of the top machine, begun at base rates, after the given numbers of Gibbs steps.

        Args:
            n: number of chains.
            steps: increasing numbers of steps, each 1 or more.
            generator: source of randomness on the model's device.
            label: int64 ``[n]``, clamped; without an effect until the layer that has the label is there.

        Shape:
            result ``[len(steps), n, C, H, W]``.
        """
        network, noise, known = self.network, RowNoise.of(generator, n, self.device), None
        with self.evaluating():
            x = TemperedPath(network.top, network.top_mean).start(noise)
            if label is not None and network.labelled:
                known = torch.zeros_like(x, dtype=torch.bool)
                known[:, -network.num_classes :] = True
                x[known] = F.one_hot(label, network.num_classes).to(x.dtype).flatten()
            seen, mean = [], torch.empty_like(x)
            for length in torch.tensor(steps).diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist():
                x = network.top.gibbs(x, length, noise, known=known, visit=mean.copy_)
                v = self._pixel_means(x, mean, noise)
                seen.append(self.image(self.units.draw_(v.clone(), noise) if self.pixels == "sample" else v))
            return torch.stack(seen)

    def _pixel_means(self, state: Tensor, mean: Tensor, noise: RowNoise) -> Tensor:
        """Means of the image's units, from the state of the top machine and the mean that it was drawn from."""
        network = self.network
        return network.generate(network.split(state)[0], noise)[0] if network.below else network.split(mean)[0]

    # ---------------------------------------------------------------- given images

    def reconstruct(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """Images after one pass up, through the top machine, and down, all by means; the label is not used."""
        with self.evaluating():
            return self.image(self.network.reconstruct(self.state(image)))

    def complete(self, image: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images with their hidden pixels filled in.

        Each step draws all layers upwards, one Gibbs step at the top and all layers downwards, and sets the known pixels back.
        This is approximate: the upward pass is not the posterior that the generative weights imply, so that the chain's
        distribution is only near p(hidden pixels | known ones). For a network of one layer it is exact.

        Args:
            image: ``[B, C, H, W]``.
            mask: ``[B, 1, H, W]``; 1 where the pixel is hidden.
            generator: source of randomness on the model's device.

        Returns:
            ``[B, C, H, W]``: known pixels as given, hidden ones as their mean over the second half of the steps, or states.
        """
        network, noise = self.network, RowNoise.of(generator, len(image), self.device)
        hidden = mask.bool().expand_as(image)
        known = self.units.places(~hidden.flatten(1))
        with self.evaluating():
            given = self.state(image)
            v = torch.where(known, given, self.units.draw_(self._base_rates(len(image)), noise))
            total, burn_in = torch.zeros_like(v), self.posterior_steps // 2
            for step in range(self.posterior_steps):
                top = network.join(network.recognise(v, noise)[-1])
                mean = torch.empty_like(top)
                top = network.top.gibbs(top, 1, noise, visit=mean.copy_)
                v = self._pixel_means(top, mean, noise)
                if step >= burn_in:
                    total += v
                v = torch.where(known, given, self.units.draw_(v.clone(), noise))
            average = total / (self.posterior_steps - burn_in)
            return torch.where(hidden, self.image(v if self.pixels == "sample" else average), image)

    def _base_rates(self, n: int) -> Tensor:
        return self.network.layers[0].mean[: self.units.dim].expand(n, -1).clone()

    def filters(self, layer: int = 0) -> Tensor:
        """What each hidden unit of a layer looks for, ``[hidden, C, H, W]``.

        Above the first layer these are linear combinations: the product of the weights (Lee, Ekanadham and Ng, NIPS 2007).

        Raises:
            UsageError: there is no such layer.
        """
        layers = self.network.layers
        require(0 <= layer < len(layers), "layer", layer, f"0 to {len(layers) - 1}")
        weights = layers[layer].machine.weight.detach().T
        for below in reversed(layers[:layer]):
            weights = weights[:, : below.machine.hidden.dim] @ below.machine.weight.detach().T
        return self.units.to_pixels(weights[:, : self.units.dim]).unflatten(-1, self.spec.shape)
