"""The index plan: every example exactly once, the same steps on every rank, the same rows for any number of processes."""

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.data.plan import EvalPlan, TrainPlan, batch_bounds

CASES = [
    (n, w, b)
    for n in (4, 5, 7, 16, 31, 33, 63, 64, 65, 97, 127, 129, 257)
    for w in (1, 2, 3, 4)
    for b in (1, 2, 3, 8, 32)
]


def held(plan: TrainPlan, epoch: int) -> list[list[int]]:
    return [index.tolist() for index, _ in plan.batches(epoch)]


@pytest.mark.parametrize(("n", "world", "size"), CASES)
def test_every_example_once_an_epoch_and_equal_steps(n: int, world: int, size: int):
    ranks = [held(TrainPlan(n, size, world, r), epoch=3) for r in range(world)]
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(n))
    assert len({len(rank) for rank in ranks}) == 1, "ranks take different numbers of steps"
    assert len(ranks[0]) == len(TrainPlan(n, size, world, 0))
    assert all(batch for rank in ranks for batch in rank), "a rank holds an empty batch"
    if size >= 4 and n >= 2 * world:
        assert min(len(batch) for rank in ranks for batch in rank) >= 2, "batch norm needs two rows"
    if size > 1:
        assert max(len(batch) for rank in ranks for batch in rank) <= size


@pytest.mark.parametrize(("n", "world", "size"), [case for case in CASES if case[1] > 1 and case[2] > 1])
def test_ranks_together_hold_the_batches_of_one_process(n: int, world: int, size: int):
    whole = list(TrainPlan(n, size * world).batches(epoch=1))
    parts = [list(TrainPlan(n, size, world, r).batches(epoch=1)) for r in range(world)]
    for step, (index, key) in enumerate(whole):
        assert torch.cat([part[step][0] for part in parts]).tolist() == index.tolist()
        row = 0
        for part in parts:
            mine = part[step][1]
            assert (mine.seed, mine.start, mine.total) == (key.seed, row, key.total)
            row += len(part[step][0])


def test_tail_shares_with_the_batch_before_it():
    assert batch_bounds(100, 32) == [0, 32, 64, 82, 100]  # 4 left over: 36 rows become 18 + 18
    assert batch_bounds(112, 32) == [0, 32, 64, 96, 112]  # 16 left over: half a batch is a batch
    assert batch_bounds(5, 32) == [0, 5]
    assert batch_bounds(96, 32) == [0, 32, 64, 96]
    assert batch_bounds(100, 32, drop_last=True) == [0, 32, 64, 96]


def test_epochs_are_different_permutations_reproducible_and_seeded(monkeypatch):
    plan = TrainPlan(50, 8)
    assert plan.permutation(0).tolist() == plan.permutation(0).tolist()
    assert plan.permutation(0).tolist() != plan.permutation(1).tolist()
    keys = {key.seed for epoch in range(4) for _, key in plan.batches(epoch)}
    assert len(keys) == 4 * len(plan), "two batches share their noise"
    before = plan.permutation(0).tolist()
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert plan.permutation(0).tolist() != before
    fixed = TrainPlan(50, 8, reshuffle=False)
    assert held(fixed, 0) == held(fixed, 5)


def test_batches_can_start_anywhere():
    plan = TrainPlan(45, 8)
    assert held(plan, 2)[3:] == [index.tolist() for index, _ in plan.batches(2, first=3)]


@pytest.mark.parametrize("n", [0, 1, 9, 10, 11, 47])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_evaluation_counts_each_example_once_in_the_same_batches(n: int, world: int):
    one = {key: index.tolist() for index, key in EvalPlan(n, 10, "val").batches()}
    ranks = [list(EvalPlan(n, 10, "val", world, r).batches()) for r in range(world)]
    assert [len(rank) for rank in ranks] == [len(EvalPlan(n, 10, "val", world, r)) for r in range(world)]
    assert sorted(i for rank in ranks for index, _ in rank for i in index.tolist()) == list(range(n))
    if -(-n // 10) >= world:
        assert {key: index.tolist() for rank in ranks for index, key in rank} == one
    elif n >= world:
        assert all(ranks), "Lightning leaves out the evaluation on a rank without a batch, and the others wait for it"
    assert one.keys().isdisjoint(key for _, key in EvalPlan(n, 10, "test").batches())


@pytest.mark.parametrize(("n", "world", "options"), [(3, 4, {}), (5, 1, {"drop_last": True})])
def test_too_few_examples_are_refused_in_one_line(n: int, world: int, options: dict):
    with pytest.raises(UsageError, match=str(n)) as caught:
        TrainPlan(n, 8, world, **options)
    assert "\n" not in str(caught.value)
