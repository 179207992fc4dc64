"""How a config chooses its estimator of log Z, and the mean state that annealing begins with."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.queues import Queue
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lit_gen.core.distributed import mean_over_processes
from lit_gen.core.errors import UsageError
from lit_gen.data import Digits
from lit_gen.energy.data_mean import first_states, mean_state
from lit_gen.energy.joined import Joined
from lit_gen.energy.likelihood import exact_log_z, raise_log_prob
from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.partition import Partition
from lit_gen.energy.path import TemperedPath
from lit_gen.energy.samplers import schedule
from lit_gen.energy.units import Bernoulli, Gaussian, Softmax
from tests.energy.enumerated_machine import make_machine, randomised

# ---------------------------------------------------------------- Partition


def test_default_temperatures_are_the_authors() -> None:
    assert torch.equal(Partition().betas(), schedule())
    torch.testing.assert_close(Partition(steps=14_500).betas(), schedule())


@pytest.mark.parametrize("steps", [1, 2, 7, 1450, 29_000])
def test_fewer_or_more_temperatures_are_spaced_as_theirs(steps: int) -> None:
    betas = Partition(steps=steps).betas()
    assert len(betas) == steps + 1
    assert betas[0] == 0
    assert betas[-1] == 1
    assert (betas.diff() > 0).all()
    # the share of temperatures below any value is theirs, up to one of them
    for value in (0.2, 0.5, 0.7, 0.95):
        share, theirs = (betas < value).double().mean(), (schedule() < value).double().mean()
        assert abs(share - theirs) <= 1.0 / steps


def test_automatic_choice() -> None:
    small, mean = make_machine("bernoulli_bernoulli").float(), torch.full((4,), 0.5)
    estimates = Partition().estimate(small, mean, mean.unsqueeze(0))
    exact = exact_log_z(small)
    assert list(estimates) == ["exact"]
    assert estimates["exact"].value == estimates["exact"].lower == estimates["exact"].upper == exact
    assert estimates["exact"].stderr == 0
    large = BipartiteMachine(Bernoulli(24), Bernoulli(22))
    partition = Partition(steps=5, chains=4, burn_in=2)
    estimates = partition.estimate(large, torch.full((24,), 0.5), torch.zeros(3, 24))
    assert list(estimates) == ["forward", "reverse"]
    with pytest.raises(UsageError, match=r"2\^22"):
        Partition("exact").estimate(large, torch.full((24,), 0.5), torch.zeros(3, 24))


@pytest.mark.parametrize("name", ["bernoulli_bernoulli", "gaussian_bernoulli", "labelled_bernoulli"])
def test_annealing_from_both_sides(name: str) -> None:
    machine = make_machine(name).float()
    mean = torch.full((machine.visible.dim,), 0.4)
    data = torch.zeros(3, machine.visible.dim)
    partition = Partition("ais", steps=200, chains=50, burn_in=30)
    estimates = partition.estimate(machine, mean, data)
    exact = exact_log_z(machine)
    for estimate in estimates.values():
        assert estimate.lower <= exact <= estimate.upper
        assert 0 < estimate.stderr < 0.2
    assert estimates == partition.estimate(machine, mean, data)  # keyed by the run's seed, not by what was drawn before
    assert list(Partition("ais", steps=5, chains=5, reverse=False).estimate(machine, mean, data)) == ["forward"]
    with torch.autocast("cpu", torch.bfloat16):
        assert estimates == partition.estimate(machine, mean, data)
    assert torch.equal(data, torch.zeros_like(data))


def test_the_chains_of_reverse_annealing_leave_the_data() -> None:
    """After one step of Gibbs sampling it shows that they began at an improbable state, after many it does not."""
    machine = randomised(BipartiteMachine(Bernoulli(10), Bernoulli(6)), scale=1.0).float()
    states = machine.visible.enumerate()
    data = states[machine.free_energy(states).argmax()].unsqueeze(0)
    mean, exact = torch.full((10,), 0.5), exact_log_z(machine)
    few, many = (
        Partition("ais", steps=1, chains=2000, burn_in=burn_in).estimate(machine, mean, data)["reverse"]
        for burn_in in (1, 100)
    )
    assert many.lower < exact < many.upper
    assert few.upper < exact - 1


def test_result_says_how_an_estimate_was_made() -> None:
    partition = Partition("ais", steps=10, chains=20, burn_in=7)
    machine = make_machine("bernoulli_bernoulli").float()
    estimates = partition.estimate(machine, torch.full((4,), 0.5), torch.zeros(1, 4))
    about = partition.about(estimates["reverse"])
    assert about["seconds"] > 0
    assert {k: v for k, v in about.items() if k != "seconds"} == {
        "method": "reverse AIS", "temperatures": 11, "chains": 20, "burn_in": 7, "log_z": estimates["reverse"].value,
        "lower": estimates["reverse"].lower, "upper": estimates["reverse"].upper,
        "log_z_stderr": estimates["reverse"].stderr, "ess": estimates["reverse"].ess,
    }  # fmt: skip
    assert partition.about(estimates["forward"])["method"] == "AIS"
    exact = Partition("exact").estimate(machine, torch.full((4,), 0.5), torch.zeros(1, 4))["exact"]
    assert "stderr" not in json.dumps(partition.about(estimates["forward"])).replace("log_z_stderr", "")
    with pytest.raises(KeyError):
        partition.about(exact)  # another's


def test_raise_of_a_config() -> None:
    machine = make_machine("bernoulli_bernoulli").float()
    mean, v = torch.full((4,), 0.5), machine.visible.enumerate()
    partition = Partition(steps=300, raise_examples=16, raise_chains=50)
    log_prob = partition.raise_log_prob(machine, mean, v)
    exact = -machine.free_energy(v).double() - exact_log_z(machine)
    torch.testing.assert_close(log_prob, exact, rtol=0, atol=0.2)
    assert torch.equal(log_prob, partition.raise_log_prob(machine, mean, v))
    other = raise_log_prob(TemperedPath(machine, mean), v, partition.betas(), 50, torch.Generator().manual_seed(0))
    assert not torch.equal(log_prob, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "guess"}, "guess"),
        ({"steps": 0}, "steps = 0"),
        ({"chains": 1}, "chains = 1"),
        ({"burn_in": 0}, "burn_in = 0"),
        ({"raise_examples": -1}, "raise_examples = -1"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Partition(**arguments)


# ---------------------------------------------------------------- the data's mean

OPTIONS = {
    "grey": {},
    "symmetric": {"value_range": "symmetric"},
    "threshold": {"binarize": "threshold"},
    "dynamic": {"binarize": "dynamic"},
    "static": {"binarize": "static"},
    "dequantized": {"dequantize": True},
    "dequantized, symmetric": {"dequantize": True, "value_range": "symmetric"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_mean_state_is_the_mean_of_what_is_trained_on(name: str) -> None:
    """Exactly, or where pixels are drawn at random within their sampling error, over an epoch."""
    data = Digits(val_size=64, **OPTIONS[name])
    mean = mean_state(data, lambda image, label: image.flatten(1))
    batches = torch.cat([batch.image.flatten(1) for batch in data.train_dataloader()]).double()
    assert mean.dtype == torch.float32
    tolerance = torch.full_like(batches[0], 1e-6)
    if "dynamic" in name or "static" in name:
        tolerance += 5 * (mean * (1 - mean) / len(batches)).sqrt()
    elif "dequantized" in name:
        tolerance += 5 / 12**0.5 / 256 / len(batches) ** 0.5 * (2 if "symmetric" in name else 1)
    assert ((mean - batches.mean(0)).abs() <= tolerance).all()


def test_mean_state_of_labelled_and_of_categorical_units() -> None:
    data = Digits(val_size=64, num_labelled=20)
    layer = Joined([Softmax(64, 3), Softmax(1, 10)])

    def state(image: Tensor, label: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(label, 10)
        return torch.cat([layer.parts[0].of_pixels(image.flatten(1)), one_hot.float()], 1)

    mean = mean_state(data, state)
    images, labels = (torch.cat(both) for both in zip(*data.clean_batches("train", 100)))
    shares = torch.bincount(labels, minlength=10) / len(labels)
    torch.testing.assert_close(mean[-10:], shares)  # all labels, not only those that are kept
    level = (images.flatten(1) / 255 * 2).round()
    for category in range(3):
        torch.testing.assert_close(mean[category : 64 * 3 : 3], (level == category).float().mean(0))


def test_first_states() -> None:
    data = Digits(binarize="threshold", val_size=64)
    first = first_states(data, lambda image, label: image.flatten(1), 300)  # more than a chunk
    images = torch.cat([images for images, _ in data.clean_batches("train")])
    assert torch.equal(first, (images[:300] >= 128).float().flatten(1))
    few = Digits(subset_size=20)
    assert len(first_states(few, lambda image, label: image.flatten(1), 300)) == 20


def test_base_rates_of_gaussian_units_from_data() -> None:
    """A machine without weights whose visible units are fitted to the data: log Z_0 is log Z."""
    data = Digits(val_size=64)
    mean = mean_state(data, lambda image, label: image.flatten(1))
    machine = BipartiteMachine(Gaussian(64, 0.3), Bernoulli(4), weight_std=0.0)
    machine.visible.fit(mean, 0.01)
    estimate = Partition("ais", steps=4, chains=3, reverse=False).estimate(machine, mean, mean.unsqueeze(0))["forward"]
    assert estimate.value == pytest.approx(exact_log_z(machine), abs=1e-4)
    assert estimate.stderr == pytest.approx(0, abs=1e-5)


# ---------------------------------------------------------------- processes


def mean_of_ranks(index: int, rendezvous: str, results: Queue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=index, world_size=2)
    value = torch.tensor([1.0, 4.0]) * (index + 1)
    results.put((index, value.tolist(), mean_over_processes(value).tolist()))
    dist.destroy_process_group()


def test_mean_over_processes(tmp_path: Path) -> None:
    alone = torch.ones(2)
    assert mean_over_processes(alone) is alone
    context = multiprocessing.get_context("fork")  # a fresh interpreter takes seconds to import torch
    results = context.Queue()
    processes = [context.Process(target=mean_of_ranks, args=(i, str(tmp_path / "rendezvous"), results)) for i in (0, 1)]
    for process in processes:
        process.start()
    for index, value, mean in (results.get(timeout=60) for _ in processes):
        assert value == [1.0 + index, 4.0 + 4 * index]  # its own is untouched
        assert mean == [1.5, 6.0]
    for process in processes:
        process.join(60)
