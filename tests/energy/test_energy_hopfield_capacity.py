"""The capacity simulation against a plain loop, its estimates against curves with a known crossing, and its files."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lit_gen.core.errors import UsageError
from lit_gen.core.random import seeded_generator
from lit_gen.energy.capacity_curve import CapacityCurve
from lit_gen.energy.hopfield_capacity import RecallCurve, recall_curves, size_crossing


def curve(height, units: int = 200, trials: int = 5) -> RecallCurve:
    loads = torch.linspace(0.1, 0.2, 11).double()
    rates = height(loads)[:, None].expand(-1, trials).clone()
    return RecallCurve("hebbian", units, 0.0, loads, rates, rates)


def test_recall_rates_equal_those_of_a_loop_over_networks_patterns_and_units() -> None:
    units, trials, patterns = 20, 3, 7
    (found,) = recall_curves("hebbian", units, [0.35], trials, recalled=0.9, seed=5)
    generator = seeded_generator(5, "hebbian", units, patterns)
    stored = torch.randint(2, (trials, patterns, units), generator=generator) * 2 - 1
    for trial, xi in enumerate(stored.tolist()):
        recalled = total = 0
        for pattern in xi:
            s, moved = list(pattern), True
            while moved:
                moved = False
                for i in range(units):
                    field = sum(p[i] * p[j] * s[j] for p in xi for j in range(units) if j != i)
                    if field * s[i] < 0:
                        s[i], moved = -s[i], True
            m = sum(a * b for a, b in zip(s, pattern)) / units
            recalled, total = recalled + (m >= 0.9), total + m
        assert found.rates[0, trial] == recalled / patterns
        assert found.overlaps[0, trial] == pytest.approx(total / patterns)
    assert 0 < found.rates.mean() < 1


def test_few_patterns_are_recalled_and_many_are_not() -> None:
    pattern, corrupted = recall_curves("hebbian", 60, [0.05, 1.0], 4, (0.0, 0.1))
    assert (pattern.rates[0] == 1).all()
    assert (corrupted.rates[0] == 1).all()
    assert pattern.rates[1].mean() < 0.2
    (projection,) = recall_curves("pseudo_inverse", 60, [0.05, 0.9], 4)
    assert (projection.rates == 1).all()


def test_capacity_is_interpolated_between_loads() -> None:
    line = curve(lambda load: 1 - (load - 0.1) / 0.1)  # 1 at 0.1, 0 at 0.2
    assert line.load_at(0.5)[0] == pytest.approx(0.15)
    assert line.load_at(0.93)[0] == pytest.approx(0.107)
    assert line.load_at(0.93)[1] == pytest.approx(0, abs=1e-12)  # networks that agree
    nothing = curve(lambda load: torch.ones_like(load)).load_at(0.5)[0]
    assert nothing != nothing


def test_standard_error_is_that_of_the_mean_where_the_estimate_is_linear() -> None:
    shifts = torch.tensor([-0.02, 0.01, 0.03, -0.01, 0.0]).double()
    line = curve(lambda load: 1 - (load - 0.1) / 0.1)
    line.rates.add_(shifts)  # the load at one half moves by a tenth of a network's shift
    value, stderr = line.load_at(0.53)
    assert value == pytest.approx(0.147 + 0.1 * float(shifts.mean()))
    assert stderr == pytest.approx(0.1 * float(shifts.std()) / 5**0.5)


def test_sizes_cross_where_the_larger_one_falls_behind() -> None:
    small = curve(lambda load: torch.sigmoid((0.1385 - load) / 0.02))
    large = curve(lambda load: torch.sigmoid((0.1385 - load) / 0.005), units=1000)
    assert size_crossing(small, large)[0] == pytest.approx(0.1385, abs=5e-4)
    nowhere = size_crossing(large, curve(lambda load: 0 * load))[0]
    assert nowhere != nowhere
    with pytest.raises(ValueError, match="same loads"):
        size_crossing(small, recall_curves("hebbian", 10, [0.1], 1)[0])


def test_callback_logs_estimates_and_writes_plot_and_table(tmp_path) -> None:
    callback = CapacityCurve(sizes=[20, 40], trials=[8, 8], loads=[0.05, 0.1, 0.2, 0.3, 0.5])
    callback.loads["pseudo_inverse"] = (0.2, 0.6)
    logged: dict[str, float] = {}
    callback.log_dict = logged.update
    trainer = SimpleNamespace(fast_dev_run=False, is_global_zero=True, default_root_dir=str(tmp_path))
    callback.on_test_epoch_end(trainer, None)
    assert logged.keys() == callback.record.keys() == {f"test/capacity_{n}" for n in (20, 40, "crossing")}
    assert 0.05 < logged["test/capacity_40"] < 0.3
    assert callback.record["test/capacity_40"]["networks"] == 8
    with Image.open(tmp_path / "samples" / "capacity.png") as picture:
        assert min(picture.size) > 300
    with open(tmp_path / "samples" / "capacity.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 5 + 2 * 2 * 2  # sizes, starts, loads of either rule
    again = {name: entry["value"] for name, entry in callback.estimates(callback.simulate(), 0.0).items()}
    assert again == pytest.approx(logged, nan_ok=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sizes": [5, 5]}, "sizes"),
        ({"trials": [1]}, "trials"),
        ({"loads": [0.2, 0.1]}, "loads"),
        ({"flip": 0.5}, "flip"),
    ],
)
def test_bad_arguments_are_named(options: dict, named: str) -> None:
    with pytest.raises(UsageError, match=rf"^{named} = .*; accepted: "):
        CapacityCurve(**options)
