"""Langevin dynamics and persistent chains against Gaussians, and against the package's own samplers."""

import math

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.core.random import RowNoise
from lit_gen.energy.energy_networks import MLPEnergy
from lit_gen.energy.langevin_training import LangevinStep, PersistentLangevin, energy_gradient, langevin
from lit_gen.energy.samplers.langevin import ULA
from tests.energy.deep_energies import PLANE, GaussianEnergy, plane_data, plane_kl, row_noise

SHAPE = (1, 3, 4)


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def frozen_dynamics(**options):
    """Chains that stay where they are, so that one sees where they began."""
    return PersistentLangevin(**{"steps": 1, "step_size": 1e-12, "noise": 1e-12, **options})


# ---------------------------------------------------------------- dynamics


def test_dynamics_are_those_of_the_unadjusted_langevin_sampler():
    network, x = MLPEnergy(SHAPE, hidden=[9]), torch.randn(6, *SHAPE)
    mine = langevin(network, x, [LangevinStep(0.1, math.sqrt(0.1), 0.0)] * 7, RowNoise.of(generator(), 6))
    theirs = ULA(lambda state: -network(state), step_size=0.1, steps=7)(x, generator()).x
    torch.testing.assert_close(mine, theirs)


def test_sampling_leaves_no_graph_and_no_gradient_behind():
    network, x = MLPEnergy(SHAPE, hidden=[9]), torch.randn(6, *SHAPE)
    before = x.clone()
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            out = langevin(network, x, [LangevinStep(0.1, 0.1, 0.0)] * 2, RowNoise.of(generator(), 6))
        assert not out.requires_grad
        assert out.grad_fn is None
        assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert torch.equal(x, before)


def test_gradient_is_that_of_float32_under_autocast():
    network, x = MLPEnergy(SHAPE, hidden=[9]), torch.randn(6, *SHAPE)
    plain = energy_gradient(network, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(energy_gradient(network, x), plain)


def test_clamp_limits_every_component():
    network = GaussianEnergy(torch.zeros(12), 100 * torch.eye(12))
    x = torch.randn(5, *SHAPE)
    out = langevin(network, x, [LangevinStep(0.2, 0.0, 0.0)], RowNoise.of(generator(), 5), clamp=3.0)
    torch.testing.assert_close(out, x - 0.1 * (100 * x).clamp(-3, 3))


def test_noise_is_a_temperature():
    """With T = n^2 / s the variance is T v / (1 - s / 4v). 20,000 chains: 5 standard errors are 5 %."""
    objective = PersistentLangevin(step_size=0.1, noise=0.1)
    temperature = 1 / objective.nats
    assert temperature == pytest.approx(0.1)
    network = GaussianEnergy(torch.zeros(1), torch.eye(1) / 0.5)
    x = langevin(network, torch.zeros(20_000, 1, 1, 1), objective.schedule(100), row_noise(20_000))
    assert x.var().item() == pytest.approx(temperature * 0.5 / (1 - 0.1 / (4 * 0.5)), rel=0.05)


# ---------------------------------------------------------------- chains


def test_chains_start_anew_at_the_stated_rate():
    """2,000 chains, binomial: 5 standard deviations are 0.027."""
    objective = frozen_dynamics(chains=2000, reinit=0.06)
    network, spec = GaussianEnergy(torch.zeros(2), torch.eye(2)), PLANE
    chains = torch.full((2000, 1, *spec.shape), 5.0)
    out = objective.negatives(network, chains, spec, row_noise(2000))
    anew = (out.abs() <= 1.0).flatten(1)
    assert (anew[:, 0] == anew[:, 1]).all()
    assert anew[:, 0].float().mean().item() == pytest.approx(0.06, abs=0.027)
    assert torch.equal(chains[:, 0], out)
    started = out[anew[:, 0]]
    assert started.min() < -0.9
    assert started.max() > 0.9


def test_each_chain_goes_on_from_one_of_its_own_results():
    objective = frozen_dynamics(chains=300, replay=4, reinit=0.0)
    chains = torch.arange(1200.0).view(300, 4, 1, 1, 1).expand(-1, -1, *PLANE.shape).clone()
    before = chains.clone()
    out = objective.negatives(GaussianEnergy(torch.zeros(2), torch.eye(2)), chains, PLANE, row_noise(300))
    torch.testing.assert_close(chains, before, atol=1e-3, rtol=0)
    slot = out[:, 0, 0, 0].round().long() - 4 * torch.arange(300)
    assert slot.bincount(minlength=4).min() > 40  # 75 expected; 5 standard deviations are 37


def test_shares_of_the_chains_move_as_all_do():
    network = MLPEnergy(PLANE.shape, hidden=[8])
    objective = PersistentLangevin(chains=8, replay=3, steps=5)
    chains = objective.initial_chains(PLANE, generator())
    assert chains.shape == (8, 3, *PLANE.shape)
    assert chains.abs().max() <= 1
    halves = chains.clone().chunk(2)
    for seed in range(4):
        whole = objective.negatives(network, chains, PLANE, row_noise(8, seed, "chains"))
        for i, part in enumerate(halves):
            out = objective.negatives(network, part, PLANE, row_noise(4, seed, "chains", 4 * i, 8))
            torch.testing.assert_close(out, whole[4 * i : 4 * i + 4])
    torch.testing.assert_close(torch.cat(halves), chains)


# ---------------------------------------------------------------- learning


def test_the_gradient_is_that_of_the_likelihood():
    """E = (x - m)^T A (x - m) / 2 with A diagonal. Each of the 4 components within 4.5 standard errors: confidence 1 - 3e-5."""
    mean, precision = torch.tensor([0.5, -0.2]), torch.tensor([1.0, 4.0])
    network = GaussianEnergy(mean, precision.diag())
    objective = PersistentLangevin(chains=4000, steps=25, step_size=0.01, reinit=0.0, data_noise=0.0)
    chains = mean.view(1, 1, 1, 1, 2) + torch.randn(4000, 1, *PLANE.shape)
    for seed in range(30):  # the slower direction forgets its start by e^-3.75, which is 2 % of it
        negatives = objective.negatives(network, chains, PLANE, row_noise(4000, seed, "chains"))
    data = plane_data(100, 0)
    loss = objective.terms(network, data, row_noise(100), negatives)["loss"]
    got = torch.cat([torch.autograd.grad(loss, network.mean, retain_graph=True)[0],
                     torch.autograd.grad(loss, network.precision)[0].diagonal()])  # fmt: skip

    exact_mean, exact_precision = mean.clone().requires_grad_(), precision.clone().requires_grad_()
    p = torch.distributions.Normal(exact_mean, exact_precision.rsqrt())
    exact = torch.cat(torch.autograd.grad(-p.log_prob(data.flatten(1)).sum(1).mean(), [exact_mean, exact_precision]))
    # var(A (x - m)) = A; var((x - m)^2 / 2) = 1 / (2 A^2)
    error = torch.cat([precision, 1 / (2 * precision**2)]).div(4000).sqrt()
    assert ((got - exact).abs() < 4.5 * error).all(), (got - exact) / error
    assert (exact.abs() > 9 * error).any()  # else nothing is shown


def test_terms_are_the_stated_formula():
    network, objective = GaussianEnergy(torch.zeros(2), torch.eye(2)), PersistentLangevin(alpha=0.3, data_noise=0.2)
    data, negatives = plane_data(5, 0), plane_data(7, 1)
    terms = objective.terms(network, data, row_noise(5), negatives)
    noisy = data + 0.2 * row_noise(5).normal(*PLANE.shape)
    e, f = (0.5 * x.square().sum((1, 2, 3)) for x in (noisy, negatives))
    expected = e.mean() - f.mean() + 0.3 * (e.square().mean() + f.square().mean())
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["energy_gap"], e.mean() - f.mean())


def test_learns_a_density_in_the_plane():
    torch.manual_seed(0)
    network = MLPEnergy(PLANE.shape, hidden=[32, 32])
    objective = PersistentLangevin(chains=128, steps=10, step_size=0.02, data_noise=0.2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    chains = objective.initial_chains(PLANE, generator())
    before = plane_kl(network, 0.2)
    for step in range(200):
        negatives = objective.negatives(network, chains, PLANE, row_noise(128, step, "chains"))
        loss = objective.terms(network, plane_data(256, step), row_noise(256, step), negatives)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = plane_kl(network, 0.2)
    assert after < 0.3 < 1.5 < before, (before, after)


@pytest.mark.parametrize(
    ("option", "value"),
    [("chains", 0), ("replay", 0), ("steps", 0), ("step_size", 0.0), ("noise", 0.0), ("reinit", 1.5),
     ("data_noise", -1.0), ("alpha", -1.0), ("clamp", 0.0)],
)  # fmt: skip
def test_mistakes_are_named(option, value):
    with pytest.raises(UsageError, match=f"{option} = "):
        PersistentLangevin(**{option: value})
