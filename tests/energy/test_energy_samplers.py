"""Every kernel against a target that is enumerated or known in closed form, and wrong kernels that the same tests reject."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from sampler_targets import (
    ALPHA,
    SURE,
    CorrelatedGaussian,
    Enumerated,
    Mixture,
    TowardsOne,
    balance,
    generator,
    rows_p_value,
    thinned,
)
from scipy import stats
from torch import Tensor, nn

from lit_gen.energy.samplers import (
    MALA,
    ULA,
    BitFlip,
    BlockGibbs,
    GaussianRandomWalk,
    GeometricPath,
    Independence,
    Kernel,
    Metropolis,
    ParallelTempering,
    Path,
    SequentialGibbs,
    run_chains,
)
from lit_gen.energy.samplers.transitions import accept

BITS = Enumerated()
POTTS = Enumerated(3, (0, 1, 2), strength=0.4)
SPINS = Enumerated(4, (-1, 1), strength=0.5)
MIXTURE = Mixture((-1.0, 1.5), (0.5, 0.8), (0.4, 0.6))
GAUSSIAN = CorrelatedGaussian()
CHAINS = 4000


def redraw(block: slice) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Exact conditional sampler of a block of BITS given the rest, by enumeration."""

    def draw(x: Tensor, noise: torch.Generator) -> Tensor:
        rest = [i for i in range(4) if i not in range(4)[block]]
        fits = (BITS.states[:, rest] == x[:, None, rest]).all(-1)
        return BITS.states[torch.multinomial(fits * BITS.p, 1, generator=noise)[:, 0]].to(x)

    return draw


def bit_logits(x: Tensor, index: Tensor) -> Tensor:
    """Conditional logits of BITS in closed form: the field of a unit."""
    bias = (BITS.bias[:, 1] - BITS.bias[:, 0])[index]
    field = bias + (BITS.weight[index] * x.double()).sum(1)
    return torch.stack([torch.zeros_like(field), field], 1)


def coin(n: int, noise: torch.Generator) -> Tensor:
    return (torch.rand(n, 4, generator=noise) < 0.6).double()


def coin_log_prob(x: Tensor) -> Tensor:
    return torch.distributions.Bernoulli(torch.tensor(0.6)).log_prob(x.float()).sum(1)


BINARY: dict[str, Kernel] = {
    "gibbs systematic": SequentialGibbs(BITS),
    "gibbs random": SequentialGibbs(BITS, scan="random"),
    "gibbs given conditionals": SequentialGibbs(None, conditional_logits=bit_logits),
    "block gibbs": BlockGibbs(redraw(slice(0, 2)), redraw(slice(2, 4))),
    "flip": Metropolis(BITS, BitFlip()),
    "flip three, four steps a call": Metropolis(BITS, BitFlip(3), steps=4),
    "asymmetric": Metropolis(BITS, TowardsOne()),
    "independence": Metropolis(BITS, Independence(coin, coin_log_prob)),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_kernels_fit_enumeration(name: str) -> None:
    draws = thinned(BINARY[name], torch.zeros(CHAINS, 4), thin=40)
    assert draws.dtype == torch.float32
    assert BITS.p_value(draws) > ALPHA


def test_asymmetric_proposal_without_correction_is_rejected() -> None:
    """The same test fails a kernel that claims symmetry for a proposal that has none."""
    assert BITS.p_value(thinned(Metropolis(BITS, TowardsOne(False)), torch.zeros(CHAINS, 4), thin=40)) < SURE


@pytest.mark.parametrize("scan", ["systematic", "random"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_categorical_gibbs(scan: str, dtype: torch.dtype) -> None:
    start = torch.zeros(CHAINS, 3, dtype=dtype)
    draws = thinned(SequentialGibbs(POTTS, (0, 1, 2), scan), start, thin=15)
    assert draws.dtype == dtype
    assert POTTS.p_value(draws) > ALPHA


def test_spins_of_image_shape() -> None:
    start = -torch.ones(CHAINS, 1, 2, 2)
    for kernel, thin in ((Metropolis(SPINS, BitFlip(values=(-1, 1))), 60), (SequentialGibbs(SPINS, (-1, 1)), 20)):
        draws = thinned(kernel, start, thin)
        assert draws.shape == (2 * CHAINS, 1, 2, 2)
        assert SPINS.p_value(draws) > ALPHA


# ---------------------------------------------------------------- transition matrices


def metropolis_matrix(kernel: Metropolis, to_one: float) -> Tensor:
    """Exact matrix of a kernel that proposes 1 for a random coordinate with probability ``to_one`` (0.5: half a flip)."""
    size = len(BITS.states)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for i in range(4):
        new = BITS.states.clone()
        new[:, i] = 1 - new[:, i]
        proposed = (new[:, i] * to_one + (1 - new[:, i]) * (1 - to_one)) / 4
        moved = proposed * kernel.log_acceptance(new, BITS.states).exp().clamp(max=1)
        matrix[torch.arange(size), BITS.code(new)] = moved
    return matrix + torch.diag(1 - matrix.sum(1))


def test_metropolis_detailed_balance() -> None:
    flip = metropolis_matrix(Metropolis(BITS, BitFlip()), 0.5)
    flip = 2 * flip - torch.eye(len(flip))  # the flip is always proposed
    asymmetric = metropolis_matrix(Metropolis(BITS, TowardsOne()), 0.8)
    for matrix, kernel in ((flip, Metropolis(BITS, BitFlip())), (asymmetric, Metropolis(BITS, TowardsOne()))):
        assert balance(matrix, BITS.p) < 1e-15
        torch.testing.assert_close(BITS.p @ matrix, BITS.p)
        assert rows_p_value(matrix, BITS, kernel) > ALPHA
    wrong = metropolis_matrix(Metropolis(BITS, TowardsOne(False)), 0.8)
    assert balance(wrong, BITS.p) > 1e-3
    assert rows_p_value(asymmetric, BITS, Metropolis(BITS, TowardsOne(False))) < SURE


def gibbs_matrices(kernel: SequentialGibbs) -> list[Tensor]:
    """Exact matrix of the update of each coordinate, from the kernel's own conditional logits."""
    size, matrices = len(BITS.states), []
    for i in range(4):
        matrix = torch.zeros(size, size, dtype=torch.float64)
        index = torch.full((size,), i)
        probability = kernel.conditional_logits(BITS.states, index).softmax(1)
        for k, value in enumerate(kernel.values):
            matrix[torch.arange(size), BITS.code(kernel.put(BITS.states, index, value))] = probability[:, k]
        matrices.append(matrix)
    return matrices


@pytest.mark.parametrize("name", ["gibbs systematic", "gibbs given conditionals"])
def test_gibbs_detailed_balance(name: str) -> None:
    """Each update and the random scan are reversible; the systematic sweep is invariant only."""
    updates = gibbs_matrices(BINARY[name])
    assert all(balance(matrix, BITS.p) < 1e-15 for matrix in updates)
    sweep = torch.linalg.multi_dot(updates)
    scan = torch.linalg.matrix_power(torch.stack(updates).mean(0), 4)
    assert balance(scan, BITS.p) < 1e-15
    assert balance(sweep, BITS.p) > 1e-3
    torch.testing.assert_close(BITS.p @ sweep, BITS.p)
    assert rows_p_value(sweep, BITS, BINARY[name]) > ALPHA
    assert rows_p_value(scan, BITS, SequentialGibbs(BITS, scan="random")) > ALPHA
    assert rows_p_value(sweep, BITS, SequentialGibbs(BITS, scan="random")) < SURE


# ---------------------------------------------------------------- continuous states

CONTINUOUS: dict[str, tuple[Callable, Kernel, int]] = {
    "walk": (MIXTURE, Metropolis(MIXTURE, GaussianRandomWalk(2.0)), 60),
    "independence": (
        MIXTURE,
        Metropolis(
            MIXTURE,
            Independence(lambda n, noise: 2 * torch.randn(n, 1, generator=noise), lambda x: -x[:, 0].square() / 8),
        ),
        30,
    ),
    "mala": (MIXTURE, MALA(MIXTURE, 1.0, steps=4), 40),
    "mala, noise of its own": (MIXTURE, MALA(MIXTURE, 0.5, noise_scale=1.2), 150),
    "walk in the plane": (GAUSSIAN, Metropolis(GAUSSIAN, GaussianRandomWalk(1.2), steps=4), 40),
    "mala in the plane": (GAUSSIAN, MALA(GAUSSIAN, 0.8), 60),
}


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_continuous_kernels_fit_closed_form(name: str, dtype: torch.dtype) -> None:
    target, kernel, thin = CONTINUOUS[name]
    draws = thinned(kernel, torch.zeros(CHAINS // 2, 2 if target is GAUSSIAN else 1, dtype=dtype), thin)
    assert draws.dtype == dtype
    assert target.p_value(draws.double()) > ALPHA


def test_mala_without_acceptance_is_rejected() -> None:
    assert MIXTURE.p_value(thinned(ULA(MIXTURE, 1.0), torch.zeros(CHAINS, 1), thin=60)) < SURE


@pytest.mark.parametrize(("step_size", "noise_scale"), [(0.5, None), (2.0, None), (1.0, 0.3), (10.0, 0.1)])
def test_ula_bias_on_a_gaussian(step_size: float, noise_scale: float | None) -> None:
    """Its stationary law is a Gaussian of variance noise^2 / (1 - (1 - step / 2 s^2)^2): KS test, and not the target's."""
    s2 = 3.0
    kernel = ULA(lambda x: -x[:, 0].square() / (2 * s2), step_size, noise_scale)
    draws = thinned(kernel, torch.zeros(6000, 1), thin=60)[:, 0].numpy()
    noise2 = step_size if noise_scale is None else noise_scale**2
    variance = noise2 / (1 - (1 - step_size / (2 * s2)) ** 2)
    if noise_scale is None:
        assert variance == pytest.approx(s2 / (1 - step_size / (4 * s2)))
    else:  # near the tempered target's variance, with the temperature noise^2 / step
        assert variance == pytest.approx(s2 * noise2 / step_size / (1 - step_size / (4 * s2)))
    n = len(draws)
    statistic = draws.var(ddof=1) * (n - 1)
    assert 2 * min(stats.chi2.cdf(statistic / variance, n - 1), stats.chi2.sf(statistic / variance, n - 1)) > ALPHA
    assert stats.kstest(draws, "norm", (0, variance**0.5)).pvalue > ALPHA
    if step_size >= 2:  # a bias of 20 % shows
        assert stats.chi2.cdf(statistic / s2, n - 1) < SURE or stats.chi2.sf(statistic / s2, n - 1) < SURE


def test_langevin_without_noise_is_gradient_ascent() -> None:
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).unsqueeze(1)
    step = torch.tensor([[0.1], [0.2], [0.3], [0.4], [0.5]], dtype=torch.float64)  # one for each chain
    moved = ULA(lambda x: -(x**4).sum(1), step, noise_scale=0.0)(x, generator()).x
    torch.testing.assert_close(moved, x - 0.5 * step * 4 * x**3)


def test_langevin_leaves_parameters_and_inference_mode_alone() -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def log_density(x: Tensor) -> Tensor:
        return network(x)[:, 0] - x.square().sum(1)

    for kernel in (ULA(log_density, 0.1), MALA(log_density, 0.1)):
        outside = kernel(torch.ones(4, 3), generator()).x
        with torch.inference_mode():
            inside = kernel(torch.ones(4, 3), generator()).x
        assert torch.equal(outside, inside)
        assert not outside.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_acceptance_of_random_walk_equals_its_integral() -> None:
    """On N(0, 1) the mean acceptance of a walk of scale s is (2 / pi) arctan(2 / s) (Gelman, Roberts and Gilks 1996)."""
    kernel = Metropolis(lambda x: -0.5 * x[:, 0].square(), GaussianRandomWalk(2.4))
    start = torch.randn(500, 1, generator=generator(3))
    acceptance = run_chains(kernel, start, 400, generator(4)).acceptance
    exact = 2 / torch.pi * torch.atan(torch.tensor(2 / 2.4)).item()
    # chains are independent: a t-test with 499 degrees of freedom
    assert stats.ttest_1samp(acceptance.numpy(), exact).pvalue > ALPHA


def test_accept_follows_its_probability() -> None:
    probability = torch.tensor([0.0, 0.01, 0.4, 0.99, 1.0, 3.0], dtype=torch.float64).repeat(20000, 1)
    share = accept(probability.log(), generator()).double().mean(0)
    assert share[0] == 0
    assert share[4] == share[5] == 1
    for j in (1, 2, 3):
        assert stats.binomtest(round(share[j].item() * 20000), 20000, probability[0, j].item()).pvalue > ALPHA
    assert not accept(torch.tensor([float("nan"), -float("inf")]), generator()).any()


# ---------------------------------------------------------------- parallel tempering


def test_parallel_tempering_on_enumerated_states() -> None:
    """All replicas fit their own tempered law, with flips, and with Gibbs on densities that belong to rows."""
    strong = Enumerated(4, strength=2.0)
    path = GeometricPath(lambda x: strong(x) / 2)
    betas = [0.0, 0.5, 1.2, 2.0]
    flip = ParallelTempering(path, lambda beta: Metropolis(path.at(beta), BitFlip()), betas)
    gibbs = ParallelTempering(path, lambda beta: SequentialGibbs(path.at(beta)), betas)
    for kernel, thin in ((flip, 40), (gibbs, 10)):
        chains = run_chains(kernel, torch.zeros(4, 3000, 4), thin, generator(5), 10, thin)
        for t, beta in enumerate(betas):
            p = torch.softmax(beta * strong(strong.states) / 2, 0)
            counts = torch.bincount(strong.code(chains.x[t]), minlength=16).double()
            large = p * 3000 > 5  # the rest is pooled
            observed = torch.cat([counts[large], counts[~large].sum(0, keepdim=True)])
            expected = torch.cat([p[large], p[~large].sum(0, keepdim=True)]) * 3000
            keep = expected > 0
            assert stats.chisquare(observed[keep], expected[keep]).pvalue > ALPHA
        assert chains.swap_rate.shape == (3, 3000)
        assert chains.acceptance.shape == (4, 3000)
        # for neighbours the mean swap rate is E[min(1, r)] over independent replicas
        states = strong.states
        for t, (low, high) in enumerate(pairwise(betas)):
            joint = torch.softmax(low * strong(states) / 2, 0)[:, None] * torch.softmax(high * strong(states) / 2, 0)
            a, b = states.repeat_interleave(16, 0), states.repeat(16, 1)
            ratio = kernel.log_swap(a, b, torch.tensor(low), torch.tensor(high)).view(16, 16)
            exact = (joint * ratio.exp().clamp(max=1)).sum().item()
            assert chains.swap_rate[t].mean().item() == pytest.approx(exact, abs=0.03)
            # detailed balance of the swap, exactly: the joint probability of (a, b) times r is that of (b, a)
            torch.testing.assert_close(joint * ratio.exp(), joint.T)


def test_parallel_tempering_crosses_where_a_walk_does_not() -> None:
    far = Mixture((-5.0, 5.0), (0.7, 0.7), (0.3, 0.7))
    path = GeometricPath(far)
    start = torch.full((400, 1), -5.0)
    walk = Metropolis(far, GaussianRandomWalk(1.0))
    assert far.p_value(thinned(walk, start, thin=150)) < SURE
    scale = torch.tensor([6.0, 4.0, 2.0, 1.5, 1.0]).repeat_interleave(400).unsqueeze(1)
    ladder = [0.02, 0.06, 0.2, 0.5, 1.0]
    tempered = ParallelTempering(path, lambda b: Metropolis(path.at(b), GaussianRandomWalk(scale)), ladder)
    draws = run_chains(tempered, start.expand(5, 400, 1), 300, generator(6), burn_in=150, thin=150).draws
    assert far.p_value(draws[:, -1]) > ALPHA


def test_geometric_path_is_the_path() -> None:
    base = lambda x: 0.3 * x.double().sum(1)  # noqa: E731
    short, long = GeometricPath(BITS, base), Path(lambda x, beta: (1 - beta) * base(x) + beta * BITS(x))
    torch.testing.assert_close(short(BITS.states, 0.3), long(BITS.states, 0.3))
    new, old = torch.linspace(0, 1, 16).double(), torch.linspace(1, 0.5, 16).double()
    torch.testing.assert_close(short.difference(BITS.states, new, old), long.difference(BITS.states, new, old))


# ---------------------------------------------------------------- contracts

ALL: dict[str, tuple[Kernel, tuple[int, ...]]] = {
    **{name: (kernel, (6, 4)) for name, kernel in BINARY.items()},
    **{name: (kernel, (6, 2 if target is GAUSSIAN else 1)) for name, (target, kernel, _) in CONTINUOUS.items()},
    "ula": (ULA(GAUSSIAN, 0.1), (6, 2)),
    "tempering": (
        ParallelTempering(
            GeometricPath(BITS), lambda b: Metropolis(GeometricPath(BITS).at(b), BitFlip()), [0.0, 0.5, 1]
        ),
        (3, 6, 4),
    ),
}


@pytest.mark.parametrize("name", ALL)
def test_randomness_comes_from_the_generator_alone(name: str) -> None:
    kernel, shape = ALL[name]
    state = torch.get_rng_state()
    start = torch.zeros(shape)
    first, again, other = (run_chains(kernel, start, 6, generator(seed), thin=2) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.draws, again.draws)
    assert not torch.equal(first.draws, other.draws)
    assert torch.equal(start, torch.zeros(shape))  # the caller's tensor is not written to
    assert first.draws.shape == (3, *shape)
    assert torch.equal(first.draws[-1], first.x)
    assert ((first.acceptance >= 0) & (first.acceptance <= 1)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_kernels_stay_on_the_gpu() -> None:
    field = torch.linspace(-1, 1, 4, device="cuda")
    density = lambda x: (x * field).sum(1) - x.square().sum(1)  # noqa: E731
    path = GeometricPath(density)
    flip = ParallelTempering(path, lambda b: Metropolis(path.at(b), BitFlip()), [0.0, 0.5, 1.0])
    simple = [SequentialGibbs(density), SequentialGibbs(density, scan="random"), MALA(density, 0.1), ULA(density, 0.1)]
    walks = [Metropolis(density, GaussianRandomWalk(0.1)), Metropolis(density, BitFlip(2)), flip]
    for kernel in (*simple, *walks):
        start = torch.zeros(*([3] if kernel is flip else []), 6, 4, device="cuda")
        chains = run_chains(kernel, start, 3, torch.Generator("cuda").manual_seed(0))
        assert chains.draws.device == chains.acceptance.device == start.device


def test_run_chains_counts() -> None:
    kernel = BlockGibbs(lambda x, noise: x + 1)  # a clock
    chains = run_chains(kernel, torch.zeros(2, 1), 7, generator(), burn_in=3, thin=2)
    assert chains.draws[:, 0, 0].tolist() == [5, 7, 9]
    assert chains.x[0, 0] == 10
    assert chains.swap_rate is None


def zero(x: Tensor) -> Tensor:
    return torch.zeros(len(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BlockGibbs(), r"conditionals = \(\); accepted: one"),
        (lambda: SequentialGibbs(zero, (1.0,)), r"values = \[1.0\]; accepted: two"),
        (lambda: SequentialGibbs(zero, scan="zigzag"), r"scan = zigzag; accepted: systematic, random"),
        (lambda: SequentialGibbs(None), r"log_density = None; accepted"),
        (lambda: Metropolis(zero, BitFlip(), steps=0), r"steps = 0; accepted"),
        (lambda: BitFlip(0), r"flips = 0; accepted"),
        (lambda: BitFlip(9).sample(torch.zeros(2, 4), generator()), r"flips = 9; accepted: 1 .. 4"),
        (lambda: BitFlip(values=(1.0, 1.0)), r"values = \(1.0, 1.0\); accepted"),
        (lambda: GaussianRandomWalk(-1.0), r"scale = -1.0; accepted"),
        (lambda: ULA(zero, 0.0), r"step_size = 0.0; accepted"),
        (lambda: ULA(zero, 0.1, -1.0), r"noise_scale = -1.0; accepted"),
        (lambda: MALA(zero, 0.1, 0.0), r"noise_scale = 0.0; accepted"),
        (lambda: MALA(zero, 0.1, steps=0), r"steps = 0; accepted"),
        (lambda: ParallelTempering(GeometricPath(zero), zero, [0.5, 0.5]), r"betas = \[0.5, 0.5\]; accepted"),
        (lambda: ParallelTempering(GeometricPath(zero), zero, [-1, 0.5]), r"betas = \[-1.0, 0.5\]; accepted"),
        (
            lambda: ParallelTempering(GeometricPath(zero), zero, [0, 1])(torch.zeros(3, 2, 4), generator()),
            r"shape of x = \[3, 2, 4\]; accepted: \[2, chains",
        ),
        (
            lambda: Metropolis(lambda x: x, BitFlip())(torch.zeros(3, 2), generator()),
            r"shape of the log density = \[3, 2\]; accepted: \[3\]",
        ),
        (lambda: run_chains(BINARY["flip"], torch.zeros(2, 4), 3, generator(), burn_in=-1), r"burn_in = -1; accepted"),
        (lambda: run_chains(BINARY["flip"], torch.zeros(2, 4), 3, generator(), thin=0), r"thin = 0; accepted"),
        (lambda: run_chains(BINARY["flip"], torch.zeros(2, 4), 3, generator(), thin=4), r"steps = 3; accepted"),
    ],
)
def test_wrong_arguments_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
