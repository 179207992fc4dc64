"""Where the model's states come from: persistence, division among processes, checkpoints, exchanges between temperatures."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from lit_gen.core import sharded
from lit_gen.core.errors import UsageError
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.energy import chains
from lit_gen.energy.chains import PersistentChains
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.negative_phase import (
    ContrastiveDivergence,
    NegativePhase,
    ParallelTempering,
    PersistentContrastiveDivergence,
)
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.units import Bernoulli
from tests.energy.enumerated_machine import ALPHA, SURE, Enumeration, chi_square, make_machine, row_noise

PHASES = {
    "pcd": lambda chains: PersistentContrastiveDivergence(2, chains),
    "parallel_tempering": lambda chains: ParallelTempering(2, chains, temperatures=4),
}
every_phase = pytest.mark.parametrize("phase", PHASES)


def key(step: int) -> BatchKey:
    return BatchKey(100 + step, 0, 3)


def run(phase: NegativePhase, machine: BipartiteMachine, steps: range, rows: int = 3) -> list[Tensor]:
    """The states that a phase gives at some updates, for batches that do not matter."""
    phase.start(machine, torch.full((machine.visible.dim,), 0.4).double())
    seen = []
    for step in steps:
        v = torch.zeros(rows, machine.visible.dim).double()
        noise = RowNoise(key(step)._replace(total=rows), rows, "model")
        seen.append(phase.states(machine, v, machine.hidden_field(v).detach(), noise).clone())
    return seen


class Processes:
    """Pretends to be one of several processes, one at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def become(self, rank: int, world: int) -> None:
        for module in (chains, sharded):
            self.monkeypatch.setattr(module, "rank", lambda: rank, raising=False)
            self.monkeypatch.setattr(module, "world_size", lambda: world)

    def gather(self, shards: list[PersistentChains]) -> Tensor:
        """``whole()`` of the first process, among others that hold these chains."""
        sent: list[Tensor] = []
        for rank, shard in enumerate(shards):  # what each of them would send
            self.become(rank, len(shards))
            self.monkeypatch.setattr(sharded.dist, "all_gather", lambda parts, mine: sent.append(mine))
            shard.whole()

        def all_gather(parts: list[Tensor], mine: Tensor) -> None:
            assert len({part.shape for part in sent}) == 1, "gathered tensors must have the same shape"
            for part, theirs in zip(parts, sent):
                part.copy_(theirs)

        self.become(0, len(shards))
        self.monkeypatch.setattr(sharded.dist, "all_gather", all_gather)
        return shards[0].whole()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


# ---------------------------------------------------------------- what the states are


def test_contrastive_divergence_begins_at_the_data() -> None:
    machine = make_machine("bernoulli_bernoulli")
    v = Enumeration(machine).v
    before, field = v.clone(), machine.hidden_field(v).detach()
    states = ContrastiveDivergence(3).states(machine, v, field, row_noise(len(v)))
    assert torch.equal(states, machine.gibbs(v, 3, row_noise(len(v))))
    assert torch.equal(v, before)
    assert ContrastiveDivergence().chains is None


def test_persistent_chains_go_on_from_where_they_were() -> None:
    machine, phase = make_machine("bernoulli_bernoulli"), PersistentContrastiveDivergence(2, chains=5)
    first, second = run(phase, machine, range(2))
    assert first.shape == (5, 4)
    noise = RowNoise(BatchKey(key(1).seed, 0, 5), 5, "chains")
    assert torch.equal(second, machine.gibbs(first, 2, noise))
    # neither the batch nor its size has a say
    again = run(PersistentContrastiveDivergence(2, chains=5), machine, range(2), rows=9)
    assert torch.equal(again[1], second)


@every_phase
def test_starting_again_changes_nothing(phase: str) -> None:
    machine = make_machine("bernoulli_bernoulli")
    straight, broken = PHASES[phase](5), PHASES[phase](5)
    expected = run(straight, machine, range(4))
    assert torch.equal(run(broken, machine, range(2))[1], expected[1])
    assert torch.equal(run(broken, machine, range(2, 4))[1], expected[3])


# ---------------------------------------------------------------- processes and checkpoints


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", ["bernoulli_bernoulli", "labelled_bernoulli", "bernoulli_gaussian"])
@every_phase
def test_shared_out_chains_are_those_of_one_process(phase: str, name: str, world: int, processes: Processes) -> None:
    machine, count = make_machine(name, "centred"), 7
    processes.become(0, 1)
    alone = PHASES[phase](count)
    expected = run(alone, machine, range(3))
    shards, seen = [], []
    for rank in range(world):
        processes.become(rank, world)
        shards.append(PHASES[phase](count))
        seen.append(run(shards[-1], machine, range(3)))
    for step in range(3):
        assert torch.equal(torch.cat([mine[step] for mine in seen]), expected[step])
    assert {len(mine[0]) for mine in seen} == {count // world, -(-count // world)}

    whole = processes.gather([shard.chains for shard in shards])
    processes.become(0, 1)
    assert torch.equal(whole, alone.chains.whole())
    # and what was saved by some goes on as one, and the other way round
    resumed = PHASES[phase](count)
    resumed.chains.load(whole)
    assert torch.equal(resumed.chains.whole(), whole)  # a checkpoint before the first update
    expected = run(alone, machine, range(3, 5))
    assert torch.equal(run(resumed, machine, range(3, 5))[1], expected[1])
    seen = []
    for rank in range(world):
        processes.become(rank, world)
        resumed = PHASES[phase](count)
        resumed.chains.load(whole)
        seen.append(run(resumed, machine, range(3, 5))[1])
    assert torch.equal(torch.cat(seen), expected[1])


def test_a_saved_state_is_a_copy() -> None:
    machine, phase = make_machine("bernoulli_bernoulli"), PersistentContrastiveDivergence(1, 4)
    run(phase, machine, range(1))
    saved = phase.chains.whole()
    kept = saved.clone()
    run(phase, machine, range(1, 3))
    assert torch.equal(saved, kept)
    phase.chains.load(saved)
    run(phase, machine, range(3, 5))
    assert torch.equal(saved, kept)


def test_bad_arguments_are_refused(processes: Processes) -> None:
    with pytest.raises(UsageError, match="k = 0; accepted: an integer of 1 or more"):
        ContrastiveDivergence(0)
    with pytest.raises(UsageError, match="chains = 0"):
        PersistentContrastiveDivergence(1, 0)
    with pytest.raises(UsageError, match="temperatures = 1"):
        ParallelTempering(temperatures=1)
    with pytest.raises(UsageError, match="chains = 5; accepted: 4, the number of chains in the checkpoint"):
        PersistentChains(5).load(torch.zeros(4, 2))
    processes.become(0, 3)
    with pytest.raises(UsageError, match="at least one for each of 3 processes"):
        PersistentChains(2).start(lambda: torch.zeros(2, 2), "cpu")


# ---------------------------------------------------------------- parallel tempering


def tempered(machine: BipartiteMachine, phase: ParallelTempering) -> Tensor:
    """Probabilities ``[T, V]`` of the visible states at every temperature."""
    exact = Enumeration(machine)
    return torch.stack([phase.path.log_density(exact.v, beta).softmax(0) for beta in phase.beta.flatten().double()])


@pytest.mark.parametrize("setting", ["plain", "centred_cold"])
def test_exchanges_leave_the_joint_over_temperatures_as_it_is(setting: str) -> None:
    """All 4^3 states of three temperatures of a machine with two visible units, drawn from their product exactly."""
    machine = make_machine("bernoulli_bernoulli", setting)
    small = BipartiteMachine(Bernoulli(2), Bernoulli(3), 0.0, *({"plain": (False, 1.0)}.get(setting, (True, 0.6))))
    small.double().load_state_dict({
        name: value[:2] if value.shape[0] == 4 else value for name, value in machine.state_dict().items()
    })  # fmt: skip
    phase, n = ParallelTempering(1, 40_000, temperatures=3), 40_000
    phase.start(small, torch.tensor([0.2, 0.9]).double())
    phase.beta = phase.beta.double()
    exact, p = Enumeration(small), tempered(small, phase)
    product = torch.einsum("i,j,k->ijk", *p).flatten()
    start = torch.multinomial(product, n, replacement=True, generator=torch.Generator().manual_seed(0))
    state = exact.v[torch.stack([start // 16, start // 4 % 4, start % 4], 1)]
    places = torch.tensor([16, 4, 1])

    def counts(state: Tensor) -> Tensor:
        codes = exact.code(state.flatten(0, 1)).view(n, 3)
        return torch.bincount((codes * places).sum(1), minlength=64).double()

    assert chi_square(counts(phase.exchange(state, row_noise(n))), product) > ALPHA
    always = phase.exchange(state, type("Zero", (), {"uniform": lambda self, p: torch.zeros(n, p)})())
    assert torch.equal(always, state[:, [1, 2, 0]])  # 0 and 1 first, then 1 and 2
    assert chi_square(counts(always), product) < SURE  # the test would notice


@pytest.mark.parametrize("setting", ["plain", "centred_cold"])
def test_every_temperature_keeps_its_distribution(setting: str) -> None:
    machine = make_machine("bernoulli_bernoulli", setting)
    phase = ParallelTempering(1, 2000, temperatures=4)
    run(phase, machine, range(40))
    exact, p = Enumeration(machine), tempered(machine, phase)
    for i in range(4):
        assert chi_square(exact.counts(phase.chains.state[:, i]), p[i]) > ALPHA / 4


def bimodal() -> BipartiteMachine:
    """All six visible units off or all on, with odds of 1 to 4 that the base rates do not show; a step seldom goes across."""
    machine = BipartiteMachine(Bernoulli(6), Bernoulli(4), 0.0).double()
    with torch.no_grad():
        machine.weight.fill_(3.0)
        machine.hidden.bias.fill_(-9.0)
        machine.visible.bias.fill_(-6.0)
        machine.hidden.bias[0] += 1.38
    return machine


def test_tempering_finds_both_modes_where_a_single_chain_does_not() -> None:
    machine, exact = bimodal(), Enumeration(bimodal())
    p = exact.joint().sum(1)
    on = exact.v.sum(1)
    assert p[on == 0].sum() > 0.1
    assert p[on == 6].sum() > 0.1
    assert p[(on > 1) & (on < 5)].sum() < 0.05
    tempering, plain = ParallelTempering(1, 500, temperatures=8), PersistentContrastiveDivergence(1, 500)
    assert chi_square(exact.counts(run(tempering, machine, range(100))[-1]), p) > ALPHA
    assert chi_square(exact.counts(run(plain, machine, range(100))[-1]), p) < SURE


def test_tempering_follows_a_machine_that_changes() -> None:
    machine = make_machine("bernoulli_bernoulli")
    phase = ParallelTempering(2, 1500, temperatures=4)
    run(phase, machine, range(3))
    target = make_machine("bernoulli_bernoulli", seed=9)
    machine.load_state_dict(copy.deepcopy(target.state_dict()))
    states = run(phase, machine, range(3, 30))[-1]
    exact = Enumeration(target)
    assert chi_square(exact.counts(states), exact.joint().sum(1)) > ALPHA
    path = TemperedPath(target, torch.full((4,), 0.4).double())
    torch.testing.assert_close(phase.path.log_density(exact.v, 0.5), path.log_density(exact.v, 0.5))
