"""Schedules equal their closed forms, and torch's own LambdaLR."""

from __future__ import annotations

import math

import pytest
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning.cli import LRSchedulerCallable
from torch.optim.lr_scheduler import LambdaLR

from lit_gen.core.errors import UsageError
from lit_gen.text.schedules import (
    ExponentialDecay,
    InverseSigmoidDecay,
    InverseSquareRoot,
    LinearDecay,
    SamplingSchedule,
)  # fmt: skip


def optimizer() -> torch.optim.Optimizer:
    """Two groups with learning rates of their own."""
    a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    return torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=2.0)


def rates(schedule: torch.optim.lr_scheduler.LRScheduler, updates: int) -> list[tuple[float, ...]]:
    seen = []
    for _ in range(updates):
        seen.append(tuple(group["lr"] for group in schedule.optimizer.param_groups))
        schedule.optimizer.step()
        schedule.step()
    return seen


def inverse_square_root(warmup: int) -> LambdaLR:
    return LambdaLR(optimizer(), lambda t: min((t + 1) / warmup, math.sqrt(warmup / (t + 1))))


@pytest.mark.parametrize("warmup", [1, 7, 40])
def test_inverse_square_root_equals_lambda_lr(warmup: int) -> None:
    found = rates(InverseSquareRoot(optimizer(), warmup), 60)
    assert found == [pytest.approx(pair) for pair in rates(inverse_square_root(warmup), 60)]
    assert found[warmup - 1] == pytest.approx((2.0, 0.5))  # the peak is the optimizer's own rate
    assert max(found) == found[warmup - 1]


def test_noam_equals_the_equation_of_the_paper() -> None:
    found = rates(InverseSquareRoot(optimizer(), 10, d_model=64), 50)
    expected = [64**-0.5 * min(u**-0.5, u * 10**-1.5) for u in range(1, 51)]
    assert [pair[0] for pair in found] == pytest.approx([2 * value for value in expected])


def test_continues_from_its_state() -> None:
    straight, first = InverseSquareRoot(optimizer(), 5), InverseSquareRoot(optimizer(), 5)
    expected = rates(straight, 20)
    rates(first, 8)
    second = InverseSquareRoot(optimizer(), 5)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert rates(second, 12) == expected[8:]


def test_named_in_a_config() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--scheduler", type=LRSchedulerCallable)
    given = {"class_path": "lit_gen.text.schedules.InverseSquareRoot", "init_args": {"warmup": 3}}
    schedule = parser.instantiate(parser.parse_object({"scheduler": given})).scheduler(optimizer())
    assert isinstance(schedule, InverseSquareRoot)
    assert rates(schedule, 1) == [pytest.approx((2 / 3, 0.5 / 3))]


def test_decays_equal_their_equations() -> None:
    for i in (0, 1, 10, 300, 1000):
        assert LinearDecay(0.9, 0.002, floor=0.25)(i) == pytest.approx(max(0.25, 0.9 - 0.002 * i))
        assert ExponentialDecay(0.99)(i) == pytest.approx(0.99**i)
        assert InverseSigmoidDecay(100)(i) == pytest.approx(100 / (100 + math.exp(i / 100)))


@pytest.mark.parametrize("decay", [LinearDecay(1.5, 1e-3, 0.1), ExponentialDecay(0.999), InverseSigmoidDecay(50)])
def test_decays_are_probabilities_that_fall(decay: SamplingSchedule) -> None:
    values = [decay(i) for i in (0, 1, 10, 100, 1000, 10_000, 10**6)]  # exp(10^6 / 50) overflows
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.95
    assert values[-1] == pytest.approx(0.1 if isinstance(decay, LinearDecay) else 0.0)


def test_inverse_sigmoid_is_one_half_at_k_log_k() -> None:
    assert InverseSigmoidDecay(20)(20 * math.log(20)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InverseSquareRoot(optimizer(), 0), "warmup = 0; accepted: 1 or more"),
        (lambda: InverseSquareRoot(optimizer(), 5, d_model=0), "d_model = 0"),
        (lambda: LinearDecay(-0.1, 0.1), "k = -0.1"),
        (lambda: LinearDecay(1, -0.1), "c = -0.1"),
        (lambda: LinearDecay(1, 0.1, floor=1), "floor = 1"),
        (lambda: ExponentialDecay(1.0), "k = 1.0; accepted: between 0 and 1"),
        (lambda: InverseSigmoidDecay(0.5), "k = 0.5; accepted: 1 or more"),
    ],
)
def test_mistakes(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
