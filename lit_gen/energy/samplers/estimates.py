r"""From log importance weights to log Z with its error. Pure functions, float64 inside, whatever the weights came from."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.energy.samplers.checks import require


class LogZ(NamedTuple):
    """An estimate of a log normalising constant, in nats.

    Attributes:
        value: the estimate.
        lower: its interval's lower end, at 3 standard errors of the mean weight; may be -inf.
        upper: its interval's upper end; may be +inf (reverse annealing).
        stderr: standard error of ``value`` by the delta method.
        ess: effective sample size of the weights, 1 .. n.
    """

    value: float
    lower: float
    upper: float
    stderr: float
    ess: float


def float64(log_weights: Tensor) -> Tensor:
    """The weights where float64 exists: on the CPU."""
    return log_weights.detach().cpu().double()


def log_mean_exp(log_weights: Tensor, dim: int = 0) -> Tensor:
    r""":math:`\log \frac1n \sum_i e^{a_i}` along a dimension, float64 on the CPU."""
    return torch.logsumexp(float64(log_weights), dim) - math.log(log_weights.shape[dim])


def weight_ess(log_weights: Tensor) -> float:
    r""":math:`(\sum_i w_i)^2 / \sum_i w_i^2`: n for equal weights, 1 where one weight has all the mass.

    Shape:
        log_weights: ``[n]``.

    References:
        Kong, Liu and Wong, Sequential imputations and Bayesian missing data problems, JASA 1994.
    """
    a = _checked(log_weights)
    return math.exp(2 * torch.logsumexp(a, 0) - torch.logsumexp(2 * a, 0))


def log_z(log_weights: Tensor, log_base: float = 0.0, deviations: float = 3.0) -> LogZ:
    r"""log Z from weights of mean :math:`Z / Z_0`.

    .. math::
        \log \hat Z = \log Z_0 + \log \bar w, \qquad
        \mathrm{interval} = \log Z_0 + \log(\bar w \pm 3\, s_w / \sqrt n), \qquad
        \mathrm{stderr} = \frac{s_w}{\sqrt n\, \bar w}

    with :math:`s_w` the sample's standard deviation (n - 1). The interval is the authors'; its lower end is -inf where the mean
    weight is within 3 of its standard errors of 0. By Jensen's inequality :math:`E[\log \hat Z] \le \log Z`: a stochastic
    lower bound. Few weights that dominate make value and error both too small; look at ``ess``.

    Args:
        log_weights: log w.
        log_base: log Z_0, in nats.
        deviations: half width of the interval in standard errors.

    Shape:
        log_weights: ``[n]``, n >= 2.

    Raises:
        ValueError: another shape, a weight that is NaN or +inf, or none that is positive.

    References:
        Salakhutdinov and Murray, On the quantitative analysis of deep belief networks, ICML 2008, section 3, and their code.
        Neal, Annealed importance sampling, Statistics and Computing 2001 (arXiv:physics/9803008), section 4.
    """
    a = _checked(log_weights)
    value = log_base + log_mean_exp(a).item()
    # relative to the mean weight nothing overflows
    stderr = (torch.exp(a - log_mean_exp(a)).std() / math.sqrt(len(a))).item()
    wide = deviations * stderr
    lower = value + math.log1p(-wide) if wide < 1 else -math.inf
    return LogZ(value, lower, value + math.log1p(wide), stderr, weight_ess(a))


def reverse_log_z(log_weights: Tensor, log_base: float = 0.0, deviations: float = 3.0) -> LogZ:
    r"""log Z from weights of mean :math:`Z_0 / Z`, those of annealing from the target down to the base.

    :math:`\log \hat Z = \log Z_0 - \log \bar w`, and by Jensen's inequality :math:`E[\log \hat Z] \ge \log Z`: a stochastic
    upper bound. Arguments and errors are those of :func:`log_z`; here the upper end of the interval may be infinite.

    References:
        Grosse, Ghahramani and Adams, Sandwiching the marginal likelihood using bidirectional Monte Carlo, 2015
        (arXiv:1511.02543).
    """
    ratio = log_z(log_weights, 0.0, deviations)
    return LogZ(log_base - ratio.value, log_base - ratio.upper, log_base - ratio.lower, ratio.stderr, ratio.ess)


def _checked(log_weights: Tensor) -> Tensor:
    shape = list(log_weights.shape)
    require(log_weights.ndim == 1 and len(log_weights) >= 2, "shape of log_weights", shape, "[n] with n >= 2")
    a = float64(log_weights)
    highest = a.max().item()  # NaN where any is NaN
    require(math.isfinite(highest), "largest log weight", highest, "a finite number, and no NaN among the weights")
    return a
