"""The gradient that an RBM trains with, against the exact one of the likelihood and of contrastive divergence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_gen.energy.machine import BipartiteMachine
from lit_gen.energy.negative_phase import (
    ContrastiveDivergence,
    NegativePhase,
    ParallelTempering,
    PersistentContrastiveDivergence,
)
from lit_gen.energy.rbm import RBM
from lit_gen.energy.units import Bernoulli
from tests.energy.enumerated_machine import (
    ALPHA,
    LAYERS,
    SETTINGS,
    SURE,
    Enumeration,
    gradient,
    gradients,
    make_machine,
    mean_p_value,
    randomised,
)
from tests.energy.toy_rbm import batch_of, make_model

every_machine = pytest.mark.parametrize("name", LAYERS)
every_setting = pytest.mark.parametrize("setting", SETTINGS)


def some_data(exact: Enumeration) -> Tensor:
    """Three visible states that are not far out."""
    v = exact.v[exact.v.abs().amax(1) <= 2]
    return v[torch.randint(len(v), (3,), generator=torch.Generator().manual_seed(4))]


def step_gradient(model: RBM, v: Tensor) -> Tensor:
    """What ``training_step`` gives to the optimizer for these visible states."""
    return gradient(model.machine, model.training_step(batch_of(model, v), 0))


def moments(g: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[P]`` and covariance ``[P, P]`` of vectors ``[V, P]`` with these probabilities ``[V]``."""
    mean = p @ g
    return mean, (g * p.unsqueeze(1)).T @ g - torch.outer(mean, mean)


class Given(NegativePhase):
    """A negative phase that says what it was told."""

    def __init__(self, v: Tensor) -> None:
        super().__init__(1, None)
        self.v = v

    def states(self, machine, v, field, noise) -> Tensor:
        return self.v


# ---------------------------------------------------------------- exactly


@every_setting
@every_machine
def test_free_energy_differences_are_the_likelihood_gradient(name: str, setting: str) -> None:
    machine = make_machine(name, setting)
    exact = Enumeration(machine)
    data = some_data(exact)
    expected = gradient(machine, -exact.log_prob(data).mean())
    p = exact.joint().sum(1)
    ours = gradient(machine, machine.free_energy(data).mean() - p @ machine.free_energy(exact.v))
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-7)
    assert expected.abs().min() > 1e-6 or "gaussian" in name  # no parameter is left out


@pytest.mark.parametrize("bits", [(8, 12), (12, 8)])
def test_likelihood_gradient_of_a_larger_machine(bits: tuple[int, int]) -> None:
    machine = randomised(BipartiteMachine(*map(Bernoulli, bits), 0.0), scale=0.5)
    exact = Enumeration(machine)
    data = some_data(exact)
    ours = gradient(machine, machine.free_energy(data).mean() - exact.joint().sum(1) @ machine.free_energy(exact.v))
    torch.testing.assert_close(ours, gradient(machine, -exact.log_prob(data).mean()), atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("k", [1, 3])
@every_setting
@every_machine
def test_expected_gradient_of_contrastive_divergence(name: str, setting: str, k: int) -> None:
    """dF(v) - sum_v' T^k(v, v') dF(v'), with T and F written out, is what ``training_step`` does on average over v'."""
    model = make_model(name, setting)
    exact = Enumeration(model.machine)
    data = some_data(exact)
    p = exact.after(data, k).mean(0)
    expected = gradient(model.machine, exact.free_energy(data).mean() - p @ exact.free_energy(exact.v))

    ours = gradient(model.machine, model.machine.free_energy(data).mean()) - p @ gradients(model.machine, exact.v)
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-7)
    # the step is linear in the states of the model: those of some v', one at a time, say it all
    for v in exact.v[:: max(1, len(exact.v) // 8)]:
        model.negative_phase = Given(v.unsqueeze(0))
        one = exact.free_energy(data).mean() - exact.free_energy(v.unsqueeze(0)).mean()
        torch.testing.assert_close(step_gradient(model, data), gradient(model.machine, one), atol=1e-9, rtol=1e-7)


def test_textbook_gradient_of_a_binary_machine() -> None:
    """<v h> under the data minus <v h> under the model, with h's probabilities (Hinton 2002)."""
    model = make_model(negative_phase=Given(torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]]).double()))
    machine, data, states = model.machine, torch.eye(4).double()[:3], model.negative_phase.v
    model.training_step(batch_of(model, data), 0).backward()
    with torch.no_grad():
        h, h_model = ((v @ machine.weight + machine.hidden.bias).sigmoid() for v in (data, states))
        torch.testing.assert_close(machine.weight.grad, states.T @ h_model / 2 - data.T @ h / 3)
        torch.testing.assert_close(machine.visible.bias.grad, states.mean(0) - data.mean(0))
        torch.testing.assert_close(machine.hidden.bias.grad, h_model.mean(0) - h.mean(0))


def test_the_gradient_in_centred_coordinates_is_the_centred_gradient() -> None:
    """One step of gradient descent, seen from the plain machine (Melchior et al. 2016, equations of section 3.2)."""
    model = make_model(setting="centred")
    exact = Enumeration(model.machine)
    data, rate = some_data(exact), 0.1
    model.negative_phase = Given(exact.v[[1, 5, 6]])
    mu, lam = model.machine.visible_offset.clone(), model.machine.hidden_offset.clone()
    before = model.machine.plain()
    before.requires_grad_(True)
    loss = before.free_energy(data).mean() - before.free_energy(model.negative_phase.v).mean()
    w, b, c = torch.autograd.grad(loss, [before.weight, before.visible.bias, before.hidden.bias])

    optimizer = torch.optim.SGD(model.machine.parameters(), lr=rate)
    model.training_step(batch_of(model, data), 0).backward()
    optimizer.step()
    after = model.machine.plain()

    centred_w = w - torch.outer(b, lam) - torch.outer(mu, c)
    with torch.no_grad():
        torch.testing.assert_close(after.weight, before.weight - rate * centred_w)
        torch.testing.assert_close(after.visible.bias, before.visible.bias - rate * (b - centred_w @ lam))
        torch.testing.assert_close(after.hidden.bias, before.hidden.bias - rate * (c - mu @ centred_w))


# ---------------------------------------------------------------- statistically

CHAINS = 2400


@every_setting
@every_machine
def test_sampled_gradients_have_the_expectation_of_contrastive_divergence(name: str, setting: str) -> None:
    """Hotelling's test over all parameters at once, with the exact covariance."""
    model = make_model(name, setting, negative_phase=ContrastiveDivergence(2))
    exact = Enumeration(model.machine)
    data = some_data(exact)
    g, p = gradients(model.machine, exact.v), exact.after(data, 2)
    means, covariances = zip(*(moments(g, row) for row in p))
    expected = gradients(model.machine, data).mean(0) - torch.stack(means).mean(0)
    covariance = torch.stack(covariances).mean(0)
    ours = step_gradient(model, data.repeat(CHAINS, 1))
    assert mean_p_value(ours, expected, covariance, 3 * CHAINS) > ALPHA


@every_setting
@every_machine
def test_long_chains_give_the_likelihood_gradient(name: str, setting: str) -> None:
    model = make_model(name, setting, negative_phase=ContrastiveDivergence(80))
    exact = Enumeration(model.machine)
    data = some_data(exact)
    expected = gradient(model.machine, -exact.log_prob(data).mean())
    _, covariance = moments(gradients(model.machine, exact.v), exact.joint().sum(1))
    assert mean_p_value(step_gradient(model, data.repeat(CHAINS // 3, 1)), expected, covariance, CHAINS) > ALPHA


def test_the_tests_would_notice_chains_that_are_too_short() -> None:
    model = make_model(negative_phase=ContrastiveDivergence(1))
    randomised(model.machine, scale=2.0)
    exact = Enumeration(model.machine)
    data = some_data(exact)
    g = gradients(model.machine, exact.v)
    _, covariance = moments(g, exact.joint().sum(1))
    expected = gradient(model.machine, -exact.log_prob(data).mean())
    ours = step_gradient(model, data.repeat(CHAINS, 1))
    assert mean_p_value(ours, expected, covariance, 3 * CHAINS) < SURE
    two_steps = gradients(model.machine, data).mean(0) - exact.after(data, 2).mean(0) @ g
    assert mean_p_value(ours, two_steps, covariance, 3 * CHAINS) < SURE


PHASES = {
    "pcd": PersistentContrastiveDivergence(10, CHAINS),
    "parallel_tempering": ParallelTempering(4, CHAINS, temperatures=3),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["bernoulli_bernoulli", "learned_gaussian_bernoulli", "labelled_bernoulli"])
def test_persistent_chains_give_the_likelihood_gradient(name: str, phase: str) -> None:
    """With the parameters held still, whatever the batch's size is."""
    model = make_model(name, "centred", negative_phase=PHASES[phase])
    model.negative_phase.start(model.machine, model.data_mean)
    exact = Enumeration(model.machine)
    data = some_data(exact)
    for seed in range(6):
        loss = model.training_step(batch_of(model, data, seed), 0)
    _, covariance = moments(gradients(model.machine, exact.v), exact.joint().sum(1))
    expected = gradient(model.machine, -exact.log_prob(data).mean())
    assert mean_p_value(gradient(model.machine, loss), expected, covariance, CHAINS) > ALPHA
