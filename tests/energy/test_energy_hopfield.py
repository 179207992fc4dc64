"""The Hopfield network's rules, energy and recall against loops, enumeration and cycles known by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from lit_gen.energy.hopfield import (
    energy,
    hebbian,
    overlap,
    pseudo_inverse,
    recall_asynchronous,
    recall_synchronous,
    update_in_turn,
)


def random_patterns(count: int, units: int, seed: int = 0) -> Tensor:
    return torch.randint(2, (count, units), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def flipped(patterns: Tensor, count: int, seed: int = 1) -> Tensor:
    places = torch.rand(patterns.shape, generator=torch.Generator().manual_seed(seed)).topk(count).indices
    return patterns.scatter(-1, places, -patterns.gather(-1, places))


def test_hebbian_weights_equal_the_sum_over_patterns_pair_by_pair() -> None:
    patterns = random_patterns(5, 7)
    expected = torch.zeros(7, 7).double()
    for i, j in itertools.permutations(range(7), 2):
        expected[i, j] = sum(float(p[i] * p[j]) for p in patterns) / 7
    torch.testing.assert_close(hebbian(patterns), expected)
    assert torch.equal(hebbian(patterns, normalise=False), (expected * 7).round())


def test_storing_in_two_halves_is_storing_at_once() -> None:
    patterns = random_patterns(40, 30).float()
    halves = sum(hebbian(half, normalise=False) for half in patterns.split(20))
    assert torch.equal(halves, hebbian(patterns, normalise=False))


def test_weights_are_symmetric_without_a_diagonal_in_any_number_of_networks() -> None:
    patterns = torch.stack([random_patterns(4, 9, seed) for seed in range(3)])
    for rule in (hebbian, pseudo_inverse):
        weight = rule(patterns)
        assert weight.shape == (3, 9, 9)
        assert torch.equal(weight, weight.mT)
        assert (weight.diagonal(dim1=-2, dim2=-1) == 0).all()
        torch.testing.assert_close(weight[1], rule(patterns[1]))


def test_energy_is_the_double_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 5, generator=generator).double()
    weight = weight + weight.T
    bias, state = torch.randn(5, generator=generator).double(), random_patterns(3, 5)
    for s, value in zip(state, energy(state, weight, bias)):
        total = sum(weight[i, j] * s[i] * s[j] for i in range(5) for j in range(5))
        torch.testing.assert_close(value, -total / 2 - (bias * s).sum())


@pytest.mark.parametrize("with_bias", [False, True])
def test_no_single_update_raises_the_energy(with_bias: bool) -> None:
    # Integer couplings: energies are exact, and the comparison needs no tolerance.
    patterns = random_patterns(12, 20)
    weight = hebbian(patterns, normalise=False)
    bias = torch.arange(20).double() - 10 if with_bias else None
    state = random_patterns(50, 20, seed=3)
    value, fell = energy(state, weight, bias), 0
    for unit in torch.randint(20, (200,), generator=torch.Generator().manual_seed(4)):
        columns = state.mT.clone()
        update_in_turn(weight, columns, unit[None], bias)
        after = energy(columns.mT, weight, bias)
        assert (after <= value).all()
        moved = (columns.mT != state).any(1)
        assert (after[moved] < value[moved]).all()
        fell += int(moved.sum())
        state, value = columns.mT, after
    assert fell > 100


def test_blocks_of_units_are_updated_as_one_unit_after_the_other() -> None:
    patterns = random_patterns(30, 80)
    weight, bias = hebbian(patterns, normalise=False), torch.arange(80).double() % 5 - 2
    sequence = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    free = torch.rand(6, 80, generator=torch.Generator().manual_seed(1)) < 0.7
    start = random_patterns(6, 80, seed=2)
    for clamp in (None, free):
        expected = start.clone()
        for row, s in enumerate(expected):
            for i in sequence:
                field = weight[i] @ s + bias[i]
                if field != 0 and (clamp is None or clamp[row, i]):
                    s[i] = field.sign()
        columns = start.mT.clone()
        changed = update_in_turn(weight, columns, sequence, bias, None if clamp is None else clamp.mT.double())
        assert torch.equal(columns.mT, expected)
        assert torch.equal(changed, (expected != start).any(1))
        assert not torch.equal(expected, start)


def test_asynchronous_recall_ends_in_local_minima_of_the_energy() -> None:
    patterns = random_patterns(3, 10)
    weight = hebbian(patterns, normalise=False)
    every = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=10))).double()
    for order in ("systematic", "random"):
        found = recall_asynchronous(weight, every, order=order, generator=torch.Generator().manual_seed(0))
        assert found.fixed.all()
        value = energy(found.state, weight)
        assert (value <= energy(every, weight)).all()
        for unit in range(10):
            turned = found.state.clone()
            turned[:, unit] *= -1
            assert (energy(turned, weight) >= value).all()


def test_states_recalled_together_end_as_they_do_alone() -> None:
    patterns = random_patterns(9, 40)
    weight = hebbian(patterns, normalise=False)
    starts = torch.cat([patterns, flipped(patterns, 8), random_patterns(9, 40, seed=5)])
    together = recall_asynchronous(weight, starts)
    alone = [recall_asynchronous(weight, start[None]) for start in starts]
    assert torch.equal(together.state, torch.cat([each.state for each in alone]))
    assert together.sweeps == max(each.sweeps for each in alone) > 2
    other = recall_asynchronous(torch.stack([weight, -weight]), torch.stack([starts, starts]))
    assert torch.equal(other.state[0], together.state)
    assert torch.equal(other.state[1], recall_asynchronous(-weight, starts).state)


def test_an_interrupted_recall_says_which_states_are_not_fixed() -> None:
    weight = hebbian(random_patterns(9, 40), normalise=False)
    starts = random_patterns(20, 40, seed=5)
    stopped = recall_asynchronous(weight, starts, sweeps=2)
    again = recall_asynchronous(weight, stopped.state, sweeps=1)
    still = (again.state == stopped.state).all(1)
    assert stopped.sweeps == 2
    assert still[stopped.fixed].all()
    assert not stopped.fixed.all()


def test_stored_patterns_are_fixed_points_and_are_recalled_from_a_tenth_of_flips() -> None:
    patterns = random_patterns(10, 200)  # load 0.05
    weight = hebbian(patterns)
    assert torch.equal(recall_asynchronous(weight, patterns).state, patterns)
    assert torch.equal(recall_synchronous(weight, patterns).state, patterns)
    noisy = flipped(patterns, 20)
    torch.testing.assert_close(overlap(noisy, patterns), torch.full((10,), 0.8).double())
    assert torch.equal(recall_asynchronous(weight, noisy).state, patterns)
    assert torch.equal(recall_synchronous(weight, noisy).state, patterns)


def test_two_units_with_one_coupling_swap_for_ever_when_updated_together() -> None:
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    start = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    found = recall_synchronous(weight, start)
    assert found.cycle.tolist() == [True, False]
    assert found.fixed.tolist() == [False, True]
    in_turn = recall_asynchronous(weight, start)
    assert in_turn.state.tolist() == [[-1, -1], [1, 1]]
    assert in_turn.fixed.all()


def test_synchronous_recall_ends_in_fixed_points_or_cycles_of_two() -> None:
    weight = hebbian(random_patterns(4, 9), normalise=False)
    every = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=9))).double()
    found = recall_synchronous(weight, every)
    assert (found.fixed ^ found.cycle).all()
    once = recall_synchronous(weight, found.state, sweeps=1).state
    twice = recall_synchronous(weight, once, sweeps=1).state
    assert torch.equal((once == found.state).all(1), found.fixed)
    assert torch.equal(twice, found.state)


def test_clamped_units_keep_their_values() -> None:
    patterns = random_patterns(3, 60)
    weight, free = hebbian(patterns), torch.zeros(3, 60, dtype=torch.bool)
    free[:, 30:] = True
    start = torch.where(free, random_patterns(3, 60, seed=9), patterns)
    for recall in (recall_asynchronous, recall_synchronous):
        assert torch.equal(recall(weight, start, free=free).state, patterns)
        kept = recall(weight, -start, free=~free).state
        assert torch.equal(kept[free], -start[free])


def test_pseudo_inverse_stores_up_to_n_independent_patterns_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (5, 20, 31):  # of 32 units, four in five of them +1: correlated, which the Hebbian rule does not bear
        patterns = (torch.rand(count, 32, generator=generator) < 0.8).double() * 2 - 1
        assert torch.linalg.matrix_rank(patterns) == count
        weight = pseudo_inverse(patterns)
        assert (patterns @ weight * patterns > 0).all()
        assert torch.equal(recall_asynchronous(weight, patterns).state, patterns)
        assert torch.equal(recall_synchronous(weight, patterns).state, patterns)
        assert not torch.equal(recall_asynchronous(hebbian(patterns), patterns).state, patterns)


def test_pseudo_inverse_is_the_projection_without_its_diagonal() -> None:
    patterns = random_patterns(6, 20)
    doubled = torch.cat([patterns, -patterns[:2]])  # dependent ones change nothing
    q, _ = torch.linalg.qr(patterns.T)
    projection = q @ q.T
    expected = projection - projection.diagonal().diag()
    torch.testing.assert_close(pseudo_inverse(patterns), expected)
    torch.testing.assert_close(pseudo_inverse(doubled), expected)
    torch.testing.assert_close(patterns @ expected, patterns * (1 - projection.diagonal()))


def test_patterns_that_span_everything_leave_no_couplings() -> None:
    patterns = 2 * torch.eye(12).double() - 1
    assert torch.linalg.matrix_rank(patterns) == 12
    assert (pseudo_inverse(patterns) == 0).all()
    assert (pseudo_inverse(patterns[:11]) != 0).any()
