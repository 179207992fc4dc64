"""Parameters of a sweep: which are accepted, what is drawn, which value a draw has."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from lit_gen.core.errors import UsageError
from lit_gen.sweeps.file import parse_sweep
from lit_gen.sweeps.sampling import first_draws
from lit_gen.sweeps.space import grid, read_parameter
from tests.sweeps.conftest import sweep_text

PATH = __import__("pathlib").Path("toy.yaml")


def drawn(given: dict[str, Any], n: int = 400, method: str = "random") -> list[Any]:
    sweep = parse_sweep(sweep_text(method=method, parameters={"x": given}), PATH)
    return [sweep.values(first_draws(sweep, 1, number))["x"] for number in range(n)]


def test_ranges_have_the_distribution_that_they_name() -> None:
    uniform = drawn({"min": -1.0, "max": 3.0})
    assert stats.kstest(uniform, stats.uniform(-1, 4).cdf).pvalue > 1e-3
    log = drawn({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1})
    assert stats.kstest([math.log10(x) for x in log], stats.uniform(-4, 3).cdf).pvalue > 1e-3
    counts = [drawn({"min": 2, "max": 5}).count(k) for k in range(2, 6)]
    assert sum(counts) == 400
    assert stats.chisquare(counts).pvalue > 1e-3
    counts = [drawn({"values": ["a", "b", None]}).count(k) for k in ("a", "b", None)]
    assert sum(counts) == 400
    assert stats.chisquare(counts).pvalue > 1e-3


def test_quantised_ranges_hit_multiples_inside_the_range() -> None:
    tenths = set(drawn({"distribution": "q_uniform", "min": 0.25, "max": 0.75, "q": 0.1}))
    assert tenths == {0.3, 0.4, 0.5, 0.6, 0.7}  # not 0.30000000000000004
    powers = drawn({"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8})
    assert set(powers) <= set(range(8, 65, 8))
    assert all(type(value) is int for value in powers)
    assert {8, 64} <= set(powers)
    assert powers.count(8) > powers.count(64)


def test_values_keep_their_types_and_may_be_anything() -> None:
    values = [1, 1.0, True, "1", None, [200, 400], '{"class_path": "lit_gen.gan.GradientPenalty"}']
    found = drawn({"values": values}, n=300)
    assert {repr(value) for value in found} == {repr(value) for value in values}


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_no_two_trials_or_seeds_draw_the_same(method: str) -> None:
    sweep = parse_sweep(sweep_text(method=method, parameters={k: {"min": 0.0, "max": 1.0} for k in "ab"}), PATH)
    points = [first_draws(sweep, seed, number) for seed in (1, 2) for number in range(50)]
    assert len({tuple(point.values()) for point in points}) == 100
    assert all(point["a"] != point["b"] for point in points)
    assert first_draws(sweep, 1, 7) == first_draws(sweep, 1, 7)


def test_a_grid_has_every_point_once() -> None:
    given = {
        "a": {"values": [1, 2, 3]}, "b": {"value": "x"}, "c": {"min": 0, "max": 1},
        "d": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.5},
    }  # fmt: skip
    parameters = tuple(read_parameter(name, value) for name, value in given.items())
    points = [tuple(p.value(point[p.name]) for p in parameters) for point in grid(parameters)]
    expected = [(a, "x", c, d) for a in (1, 2, 3) for c in (0, 1) for d in (0, 0.5, 1)]
    assert points == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "x = 3: accepted is a mapping"),
        ({"min": 1}, "give value, values, or min and max"),
        ({"min": 2, "max": 1}, "min 2 is greater than max 1"),
        ({"min": "1e-4", "max": 1.0}, "min = '1e-4': expected a number: YAML reads 1e-3 as text"),
        ({"min": 0, "max": 1, "step": 2}, "unknown key step"),
        ({"min": 0, "max": 1, "values": [1]}, "categorical takes values alone"),
        ({"values": []}, "at least one value"),
        ({"values": "abc"}, "accepted is a list"),
        ({"values": [1, 2, 1]}, "1 stands there twice"),
        ({"values": [{"class_path": "a"}]}, "write it as JSON in quotes"),
        ({"distribution": "normal", "mu": 0}, "unknown key mu"),
        ({"distribution": "normal", "min": 0, "max": 1}, "distribution normal; accepted: constant, categorical, uniform"),
        ({"distribution": "log_uniform", "min": -3, "max": 1}, "log_uniform_values the values"),
        ({"distribution": "categorical_w_probabilities", "values": [1]}, "categorical_w_probabilities; accepted"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "greater than 0"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 1}, "expected integers"),
        ({"distribution": "q_uniform", "min": 0.2, "max": 0.4, "q": 1}, "q = 1: accepted"),
        ({"parameters": {"lr": {"value": 1}}}, "nested group: write its parameters with dots, such as x.lr"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_line(given: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_parameter("x", given)
    assert message in str(caught.value)
    assert str(caught.value).startswith("parameters.x")
    assert "\n" not in str(caught.value)
