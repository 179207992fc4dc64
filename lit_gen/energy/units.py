r"""Layers of units: what a unit can be, as an exponential family.

Two layers x and y of a bipartite machine interact through :math:`-s(x)^T W s(y)`. Given y, the units of x are independent, and
each is an exponential family in the field :math:`f = W s(y)` that it receives:

.. math:: p(x \mid f) \propto \exp(-\beta\,[\epsilon(x) - s(x)^T f])

with its own energy :math:`\epsilon`, its coupling statistic s and the inverse temperature :math:`\beta`. A kind of unit is
these two functions with the mean, a sampler and the logarithm of the normaliser that follow from them; everything else
(free energy, Gibbs sampling, annealing, exact enumeration) is written once for all of them.

States are float tensors whose last axis is ``dim``. A categorical unit takes as many places as it has categories.

References:
    Welling, Rosen-Zvi and Hinton, Exponential Family Harmoniums with an Application to Information Retrieval, NIPS 2004.
    Hinton, A Practical Guide to Training Restricted Boltzmann Machines, 2012, section 13.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.errors import require
from lit_gen.core.random import RowNoise

ENUMERABLE = 20
"""Most binary units (or as many joint states of others) that are enumerated: 2^20 states."""


class Units(nn.Module):
    """A layer of independent units.

    Subclasses set ``dim``, create their parameters and implement the methods below; fields and states are ``[..., dim]``.
    The methods that end in an underscore overwrite the field they are given and return it.

    Args:
        n: number of units.
    """

    discrete: bool = True
    """Whether the states can be enumerated."""

    def __init__(self, n: int) -> None:
        super().__init__()
        require(n >= 1, "number of units", n, "1 or more")
        self.n, self.dim = n, n

    def energy(self, x: Tensor) -> Tensor:
        """The units' own energy, ``[...]``, in nats."""
        raise NotImplementedError

    def coupled(self, x: Tensor) -> Tensor:
        """s(x), what the weights multiply."""
        return x

    def log_partition(self, field: Tensor, beta: float = 1.0) -> Tensor:
        """log of the sum (integral) of exp(-beta [energy(x) - s(x) field]) over x, ``[...]``."""
        raise NotImplementedError

    def mean_(self, field: Tensor, beta: float = 1.0) -> Tensor:
        """E[x | field]."""
        raise NotImplementedError

    def draw_(self, mean: Tensor, noise: RowNoise, beta: float = 1.0) -> Tensor:
        """x drawn from p(x | field) given its mean under that field; rows of the mean are rows of the noise."""
        raise NotImplementedError

    def sample_(self, field: Tensor, noise: RowNoise, beta: float = 1.0) -> Tensor:
        """x drawn from p(x | field)."""
        return self.draw_(self.mean_(field, beta), noise, beta)

    def shift_bias(self, field: Tensor) -> None:
        """Adds a constant field ``[dim]`` to the one that the units always feel, in place."""
        raise NotImplementedError

    def constant_field(self) -> Tensor:
        """The field ``[dim]`` that the units feel by themselves, in units of what W contributes."""
        raise NotImplementedError

    def fit(self, mean: Tensor, smoothing: float) -> None:
        """Sets the parameters such that the units alone, without a field, have these mean states ``[dim]``.

        Args:
            mean: mean states of the data.
            smoothing: weight in (0, 1) of the uniform distribution (for discrete units), which keeps the bias finite.
        """
        raise NotImplementedError

    def enumerate(self) -> Tensor:
        """All states ``[S, dim]``.

        Raises:
            UsageError: they are too many, or not countable.
        """
        require(self.discrete, "units to enumerate", type(self).__name__, "units with finitely many states")
        require(self.log2_states() <= ENUMERABLE, "states to enumerate", f"2^{self.log2_states():.0f}",
                f"at most 2^{ENUMERABLE}")  # fmt: skip
        return self._enumerate()

    def log2_states(self) -> float:
        """Base-two logarithm of the number of states."""
        return math.inf

    def _enumerate(self) -> Tensor:
        raise NotImplementedError

    # ---------------------------------------------------------------- pixels

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """States ``[B, dim]`` of pixels ``[B, n]``."""
        return pixels

    def to_pixels(self, x: Tensor) -> Tensor:
        """Pixels ``[B, n]`` of states or of their means ``[B, dim]``."""
        return x

    def places(self, x: Tensor) -> Tensor:
        """What is said of each unit, ``[..., n]``, said of each of its places, ``[..., dim]``."""
        return x


class Bernoulli(Units):
    r"""Binary units in {0, 1} with energy :math:`-b^T x`."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.bias = nn.Parameter(torch.zeros(n))

    def energy(self, x: Tensor) -> Tensor:
        return -(x @ self.bias)

    def log_partition(self, field: Tensor, beta: float = 1.0) -> Tensor:
        activation = field + self.bias
        return F.softplus(activation if beta == 1.0 else beta * activation).sum(-1)

    def mean_(self, field: Tensor, beta: float = 1.0) -> Tensor:
        field += self.bias
        if beta != 1.0:
            field *= beta
        return field.sigmoid_()

    def draw_(self, mean: Tensor, noise: RowNoise, beta: float = 1.0) -> Tensor:
        return torch.lt(noise.uniform_like(mean), mean, out=mean)

    def shift_bias(self, field: Tensor) -> None:
        self.bias.data += field

    def constant_field(self) -> Tensor:
        return self.bias

    def fit(self, mean: Tensor, smoothing: float) -> None:
        self.bias.data.copy_(torch.logit((1 - smoothing) * mean + smoothing / 2))

    def log2_states(self) -> float:
        return self.n

    def _enumerate(self) -> Tensor:
        codes = torch.arange(2**self.n, device=self.bias.device)
        return (codes.unsqueeze(-1) >> torch.arange(self.n, device=codes.device)).bitwise_and(1).to(self.bias.dtype)


class Softmax(Units):
    r"""Categorical units, one-hot, with energy :math:`-\sum_{ik} b_{ik} x_{ik}`; a state is ``[n * categories]`` long.

    As visible units, a pixel in [0, 1] is rounded to one of ``categories`` equally spaced levels.

    Args:
        n: number of units.
        categories: K.
    """

    def __init__(self, n: int, categories: int = 2) -> None:
        super().__init__(n)
        require(categories >= 2, "categories", categories, "2 or more")
        self.categories, self.dim = categories, n * categories
        self.bias = nn.Parameter(torch.zeros(self.dim))

    def _units(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n, self.categories))

    def energy(self, x: Tensor) -> Tensor:
        return -(x @ self.bias)

    def log_partition(self, field: Tensor, beta: float = 1.0) -> Tensor:
        return self._units(beta * (field + self.bias)).logsumexp(-1).sum(-1)

    def mean_(self, field: Tensor, beta: float = 1.0) -> Tensor:
        field += self.bias
        return field.copy_(self._units(field.mul_(beta)).softmax(-1).flatten(-2))

    def draw_(self, mean: Tensor, noise: RowNoise, beta: float = 1.0) -> Tensor:
        # inverse transform: the first category whose cumulated probability exceeds u
        cumulated = self._units(mean).cumsum(-1)
        u = noise.uniform_like(cumulated[..., 0])
        category = (u.unsqueeze(-1) >= cumulated[..., :-1]).sum(-1, keepdim=True)
        self._units(mean.zero_()).scatter_(-1, category, 1.0)
        return mean

    def shift_bias(self, field: Tensor) -> None:
        self.bias.data += field

    def constant_field(self) -> Tensor:
        return self.bias

    def fit(self, mean: Tensor, smoothing: float) -> None:
        self.bias.data.copy_(((1 - smoothing) * mean + smoothing / self.categories).log())

    def log2_states(self) -> float:
        return self.n * math.log2(self.categories)

    def _enumerate(self) -> Tensor:
        codes = torch.arange(self.categories**self.n, device=self.bias.device)
        powers = self.categories ** torch.arange(self.n, device=codes.device)
        digits = codes.unsqueeze(-1) // powers % self.categories
        return F.one_hot(digits, self.categories).flatten(-2).to(self.bias.dtype)

    def of_pixels(self, pixels: Tensor) -> Tensor:
        level = (pixels * (self.categories - 1)).round().long()
        return F.one_hot(level, self.categories).flatten(-2).to(pixels.dtype)

    def to_pixels(self, x: Tensor) -> Tensor:
        levels = torch.linspace(0, 1, self.categories, device=x.device, dtype=x.dtype)
        return self._units(x) @ levels

    def places(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.categories, -1)


class Gaussian(Units):
    r"""Real units with energy :math:`\sum_i (x_i - \mu_i)^2 / 2 \sigma_i^2` and statistic :math:`s(x) = x / \sigma`.

    Given the field f, x is normal with mean :math:`\mu + \sigma f` and variance :math:`\sigma^2 / \beta`.

    Args:
        n: number of units.
        sigma: standard deviation, to begin with where it is learned.
        learn_sigma: train :math:`\log \sigma_i^2` (Cho et al. 2011, section 3.1).

    References:
        Cho, Ilin and Raiko, Improved Learning of Gaussian-Bernoulli Restricted Boltzmann Machines, ICANN 2011.
    """

    discrete = False

    def __init__(self, n: int, sigma: float = 1.0, learn_sigma: bool = False) -> None:
        super().__init__(n)
        require(sigma > 0, "sigma", sigma, "a number greater than 0")
        self.mu = nn.Parameter(torch.zeros(n))
        log_variance = torch.full((n,), 2 * math.log(sigma))
        if learn_sigma:
            self.log_variance = nn.Parameter(log_variance)
        else:
            self.register_buffer("log_variance", log_variance)

    @property
    def sigma(self) -> Tensor:
        """Standard deviations ``[n]``."""
        return (0.5 * self.log_variance).exp()

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * ((x - self.mu).square() * (-self.log_variance).exp()).sum(-1)

    def coupled(self, x: Tensor) -> Tensor:
        return x * (-0.5 * self.log_variance).exp()

    def log_partition(self, field: Tensor, beta: float = 1.0) -> Tensor:
        normaliser = 0.5 * (math.log(2 * math.pi / beta) + self.log_variance)
        return (normaliser + beta * (self.mu / self.sigma * field + 0.5 * field.square())).sum(-1)

    def mean_(self, field: Tensor, beta: float = 1.0) -> Tensor:
        return field.mul_(self.sigma).add_(self.mu)

    def draw_(self, mean: Tensor, noise: RowNoise, beta: float = 1.0) -> Tensor:
        return mean.addcmul_(noise.normal_like(mean), self.sigma / math.sqrt(beta))

    def shift_bias(self, field: Tensor) -> None:
        self.mu.data += self.sigma * field

    def constant_field(self) -> Tensor:
        return self.mu / self.sigma

    def fit(self, mean: Tensor, smoothing: float) -> None:
        self.mu.data.copy_(mean)
