r"""Paths of unnormalised densities :math:`f_\beta`, from an easy one at 0 to the target at 1."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lit_gen.energy.samplers.transitions import Kernel, LogDensity, evaluate

Beta = float | Tensor
"""An inverse temperature: one for all rows, or one for each row ``[C]``."""

KernelAt = Callable[[Beta], Kernel]
"""Inverse temperature -> a kernel that leaves p_beta invariant, e.g. ``lambda b: Metropolis(path.at(b), BitFlip())``."""


class Path:
    r"""Any path, given as a function :math:`\log f_\beta(x)`.

    Args:
        log_density: (states ``[C, ...]``, beta) -> ``[C]``.
    """

    def __init__(self, log_density: Callable[[Tensor, Beta], Tensor]) -> None:
        self.log_density = log_density

    def __call__(self, x: Tensor, beta: Beta) -> Tensor:
        r""":math:`\log f_\beta(x)`, ``[C]``."""
        return self.log_density(x, beta)

    def at(self, beta: Beta) -> LogDensity:
        """The log density at one inverse temperature, as kernels take it."""
        return lambda x: self(x, beta)

    def difference(self, x: Tensor, new: Beta, old: Beta) -> Tensor:
        r""":math:`\log f_\mathrm{new}(x) - \log f_\mathrm{old}(x)`, ``[C]``."""
        return evaluate(self.at(new), x) - evaluate(self.at(old), x)


class GeometricPath(Path):
    r""":math:`\log f_\beta = (1 - \beta) \log f_0 + \beta \log f_1`.

    The difference of two neighbours is taken as :math:`(\beta' - \beta)(\log f_1 - \log f_0)`: half the evaluations, and no
    cancellation where thousands of small increments are summed.

    Args:
        log_target: log f_1.
        log_base: log f_0, finite wherever f_1 is positive; None for 0, which makes the path :math:`f_1^\beta` (tempering).

    References:
        Gelman and Meng, Simulating normalizing constants: from importance sampling to bridge sampling to path sampling,
        Statistical Science 1998.
    """

    def __init__(self, log_target: LogDensity, log_base: LogDensity | None = None) -> None:
        super().__init__(self._mix)
        self.log_target, self.log_base = log_target, log_base

    def _mix(self, x: Tensor, beta: Beta) -> Tensor:
        target = evaluate(self.log_target, x)
        return beta * target if self.log_base is None else (1 - beta) * evaluate(self.log_base, x) + beta * target

    def difference(self, x: Tensor, new: Beta, old: Beta) -> Tensor:
        target = evaluate(self.log_target, x)
        return (new - old) * (target if self.log_base is None else target - evaluate(self.log_base, x))
