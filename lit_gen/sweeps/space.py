"""The parameters of a W&B sweep: what each may be, how a draw becomes a value, and all points of a grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_gen.core.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KEYS = ("value", "values", "min", "max", "q", "distribution")
CHOICES = ("constant", "categorical")
RANGES = ("uniform", "int_uniform", "q_uniform", "log_uniform_values", "q_log_uniform_values")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep. A *draw* is what Optuna stores, a *value* is what the run is given.

    Args:
        name: dotted key of the configuration, e.g. ``model.init_args.beta``.
        choices: the values of a categorical or constant parameter; its draw is an index (values may be of any type).
        low: lower end of a range.
        high: upper end of a range.
        log: whether the logarithm is uniform.
        integer: whether a range is one of integers.
        q: values are multiples of it; the draw is the multiple (not its logarithm's).
    """

    name: str
    choices: tuple[Any, ...] | None = None
    low: float = 0
    high: float = 0
    log: bool = False
    integer: bool = False
    q: float | None = None

    def distribution(self) -> "BaseDistribution":
        """The distribution of the draws."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return CategoricalDistribution(tuple(range(len(self.choices))))
        if self.integer:
            return IntDistribution(int(self.low), int(self.high))
        if self.q is not None and not self.log:
            return IntDistribution(*self._multiples())
        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, draw: Any) -> Any:
        """What the run is given for a draw."""
        if self.choices is not None:
            return self.choices[draw]
        if self.q is None:
            return draw
        first, last = self._multiples()
        multiple = min(max(round(draw / self.q), first), last) if self.log else draw
        # 3 * 0.1 is 0.30000000000000004
        return multiple * self.q if isinstance(self.q, int) else float(f"{multiple * self.q:.12g}")

    def draws(self) -> list[Any] | None:
        """All draws, or None where they cannot be counted."""
        if self.choices is not None:
            return list(range(len(self.choices)))
        if self.log or not (self.integer or self.q is not None):
            return None
        first, last = (int(self.low), int(self.high)) if self.integer else self._multiples()
        return list(range(first, last + 1))

    def ends(self) -> list[Any]:
        """Draws that show whether the parameter is accepted: every choice, or both ends of the range."""
        distribution = self.distribution()
        return self.draws() if self.choices is not None else [distribution.low, distribution.high]

    def _multiples(self) -> tuple[int, int]:
        tiny = 1e-9
        return math.ceil(self.low / self.q - tiny), math.floor(self.high / self.q + tiny)


def read_parameter(name: str, given: Any) -> Parameter:
    """Makes a parameter of its description in a sweep file.

    Args:
        name: its name.
        given: the mapping that stands under its name.

    Raises:
        UsageError: it is not one that can be drawn from.
    """
    where = f"parameters.{name}"
    if not isinstance(given, Mapping):
        raise UsageError(f"{where} = {given}: accepted is a mapping with one of {', '.join(KEYS)}")
    if "parameters" in given:
        raise UsageError(f"{where} is a nested group: write its parameters with dots, such as {name}.lr")
    if unknown := [key for key in given if key not in KEYS]:
        raise UsageError(f"{where}: unknown key {unknown[0]}; accepted: {', '.join(KEYS)}")
    kind = given.get("distribution") or _guess(where, given)
    if kind in CHOICES:
        return _read_choices(name, where, kind, given)
    if kind not in RANGES:
        hint = "; log_uniform takes exponents, log_uniform_values the values" if kind == "log_uniform" else ""
        raise UsageError(f"{where}: distribution {kind}; accepted: {', '.join((*CHOICES, *RANGES))}{hint}")
    return _read_range(name, where, kind, given)


def _guess(where: str, given: Mapping[str, Any]) -> str:
    """The distribution that W&B takes where none is named."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical"
    if "min" in given and "max" in given:
        return "int_uniform" if type(given["min"]) is int and type(given["max"]) is int else "uniform"
    raise UsageError(f"{where}: give value, values, or min and max")


def _read_choices(name: str, where: str, kind: str, given: Mapping[str, Any]) -> Parameter:
    key = "value" if kind == "constant" else "values"
    if set(given) - {"distribution"} != {key}:
        raise UsageError(f"{where}: distribution {kind} takes {key} alone, given: {', '.join(given)}")
    choices = (given["value"],) if kind == "constant" else given["values"]
    if not isinstance(choices, (list, tuple)) or not choices:
        raise UsageError(f"{where}.values = {choices}: accepted is a list of at least one value")
    if nested := [choice for choice in choices if isinstance(choice, Mapping)]:
        raise UsageError(f"{where}: {nested[0]} is a mapping: write it as JSON in quotes, '{{\"class_path\": ...}}'")
    if repeated := [choice for i, choice in enumerate(choices) if repr(choice) in map(repr, choices[:i])]:
        raise UsageError(f"{where}.values: {repeated[0]!r} stands there twice")
    return Parameter(name, choices=tuple(choices))


def _read_range(name: str, where: str, kind: str, given: Mapping[str, Any]) -> Parameter:
    wanted = {"min", "max"} | ({"q"} if kind.startswith("q_") else set())
    if kind.startswith("q_") and "q" not in given:
        given = {**given, "q": 1}
    if set(given) - {"distribution"} != wanted:
        raise UsageError(f"{where}: distribution {kind} takes {', '.join(sorted(wanted))}, given: {', '.join(given)}")
    for key in sorted(wanted):
        value = given[key]
        if type(value) not in (int, float) or not math.isfinite(value):
            hint = ": YAML reads 1e-3 as text, write 1.0e-3" if isinstance(value, str) else ""
            raise UsageError(f"{where}.{key} = {value!r}: expected a number{hint}")
    low, high, q = given["min"], given["max"], given.get("q")
    integer = kind == "int_uniform"
    if integer and (type(low) is not int or type(high) is not int):
        raise UsageError(f"{where}: int_uniform from {low} to {high}: expected integers")
    if low > high:
        raise UsageError(f"{where}: min {low} is greater than max {high}")
    log = "log_" in kind
    if log and low <= 0:
        raise UsageError(f"{where}.min = {low}: {kind} takes values greater than 0 (not exponents)")
    parameter = Parameter(name, low=low, high=high, log=log, integer=integer, q=q)
    if q is not None and (q <= 0 or parameter._multiples()[0] > parameter._multiples()[1]):
        raise UsageError(f"{where}.q = {q}: accepted is a number above 0 with a multiple in [{low}, {high}]")
    return parameter


def grid(parameters: tuple[Parameter, ...]) -> list[dict[str, Any]]:
    """The draws of all points of a grid; the last parameter changes fastest.

    Raises:
        UsageError: a parameter has no countable values.
    """
    axes = []
    for parameter in parameters:
        draws = parameter.draws()
        if draws is None:
            raise UsageError(f"parameters.{parameter.name} is a continuous range: method grid takes value or values")
        axes.append(draws)
    names = [parameter.name for parameter in parameters]
    return [dict(zip(names, point)) for point in itertools.product(*axes)]
