"""The RBM as a model: likelihood, images given pixels, training; against the few images there are, written out."""

from __future__ import annotations

import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.energy.negative_phase import ContrastiveDivergence, ParallelTempering, PersistentContrastiveDivergence
from lit_gen.energy.partition import Partition
from lit_gen.energy.rbm import RBM
from lit_gen.energy.units import Bernoulli, Gaussian
from tests.energy.enumerated_machine import ALPHA, SETTINGS, SURE, Enumeration, chi_square
from tests.energy.toy_rbm import BarsAndStripes, all_images, batch_of, make_model

SHAPE = (1, 2, 2)
MASK = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2).double()  # 1: hidden
every_setting = pytest.mark.parametrize("setting", SETTINGS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- likelihood


@every_setting
@pytest.mark.parametrize("name", ["bernoulli_bernoulli", "bernoulli_gaussian"])
def test_probabilities_of_all_images_sum_to_one(name: str, setting: str) -> None:
    model, images = make_model(name, setting), all_images(SHAPE)
    log_prob = model.log_prob(images)
    assert log_prob.logsumexp(0).item() == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(log_prob, Enumeration(model.machine).log_prob(images.flatten(1)))
    torch.testing.assert_close(model.free_energy(images), Enumeration(model.machine).free_energy(images.flatten(1)))


def test_annealing_gives_nearly_the_same() -> None:
    model, images = make_model(partition=Partition(method="ais", steps=500, chains=200)), all_images(SHAPE)
    assert model.log_prob(images).logsumexp(0).item() == pytest.approx(0, abs=0.05)


# ---------------------------------------------------------------- images given pixels


def posterior(model: RBM, weight: Tensor) -> Tensor:
    """p(v) times a weight, normalised, over all images: ``[16]``."""
    with torch.no_grad():
        logs = model.log_prob(all_images(SHAPE)) + weight.log()
    return logs.softmax(0)


def check_means(ours: Tensor, expected: Tensor, free: Tensor) -> None:
    """Bonferroni over pixels: means of independent rows ``[n, ...]`` within their standard errors of the exact ones."""
    error = ours.std(0) / math.sqrt(len(ours))
    z = (ours.mean(0) - expected) / error
    bound = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - ALPHA / 2 / free.sum().item())).item()
    assert (z[free].abs() < bound).all(), z


@every_setting
def test_completion_is_the_mean_given_the_known_pixels(setting: str) -> None:
    model, images = make_model(setting=setting, posterior_steps=80), all_images(SHAPE)
    hidden = MASK.bool().flatten()
    for given in (images[3], images[13]):
        rows = given.expand(400, -1, -1, -1)
        done = model.complete(rows, MASK.expand(400, -1, -1, -1), generator())
        assert torch.equal(done.flatten(1)[:, ~hidden], rows.flatten(1)[:, ~hidden])
        agrees = (images.flatten(1)[:, ~hidden] == given.flatten()[~hidden]).all(1).double()
        expected = posterior(model, agrees) @ images.flatten(1)
        check_means(done.flatten(1), expected, hidden)


@every_setting
def test_denoising_is_the_mean_given_the_noisy_image(setting: str) -> None:
    model, images, flip = make_model(setting=setting, posterior_steps=80), all_images(SHAPE), 0.2
    noisy = images[6]
    flipped = (images != noisy).flatten(1).sum(1)
    expected = posterior(model, flip**flipped * (1 - flip) ** (4 - flipped)) @ images.flatten(1)
    done = model.denoise(noisy.expand(400, -1, -1, -1), flip, generator())
    check_means(done.flatten(1), expected, torch.ones(4, dtype=torch.bool))


def test_completed_and_denoised_states_have_the_posterior_distribution() -> None:
    model, images = make_model(pixels="sample", posterior_steps=40), all_images(SHAPE)
    rows, flip = images[9].expand(3000, -1, -1, -1), 0.3
    known = ~MASK.bool().flatten()
    agrees = (images.flatten(1)[:, known] == images[9].flatten()[known]).all(1).double()
    exact = Enumeration(model.machine)

    def counts(image: Tensor) -> Tensor:  # in the order of all_images
        return exact.counts(image.flatten(1))[exact.code(images.flatten(1))]

    completed = counts(model.complete(rows, MASK.expand(3000, -1, -1, -1), generator()))
    assert completed[agrees == 0].sum() == 0
    assert chi_square(completed[agrees == 1], posterior(model, agrees)[agrees == 1]) > ALPHA
    flipped = (images != images[9]).flatten(1).sum(1)
    p = posterior(model, flip**flipped * (1 - flip) ** (4 - flipped))
    denoised = counts(model.denoise(rows, flip, generator(1)))
    assert chi_square(denoised, p) > ALPHA
    assert chi_square(denoised, posterior(model, torch.ones(16).double())) < SURE


def test_completion_of_categorical_pixels() -> None:
    model = make_model("softmax_bernoulli", posterior_steps=80)
    exact = Enumeration(model.machine)
    image = torch.tensor([0.5, 1.0]).double().view(1, 1, 1, 2).expand(400, -1, -1, -1)
    mask = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(400, -1, -1, -1)
    done = model.complete(image, mask, generator()).flatten(1)
    pixels = model.machine.visible.to_pixels(exact.v)
    p = exact.joint().sum(1) * (pixels[:, 0] == 0.5)
    check_means(done, p @ pixels / p.sum(), torch.tensor([False, True]))


def test_completion_of_gaussian_pixels() -> None:
    model = make_model("gaussian_bernoulli", posterior_steps=80)
    exact = Enumeration(model.machine)
    value = exact.v[exact.v[:, 0].abs().argmin(), 0]
    image = torch.stack([value, value]).view(1, 1, 1, 2).expand(400, -1, -1, -1)
    mask = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(400, -1, -1, -1)
    model.spec = ImageSpec((1, 1, 2), 0, (-100.0, 100.0))  # so that nothing is clamped to the data's range
    done = model.complete(image, mask, generator()).flatten(1)
    p = exact.joint().sum(1) * (exact.v[:, 0] == value)
    check_means(done, p @ exact.v / p.sum(), torch.tensor([False, True]))


def test_denoising_needs_binary_pixels_and_a_probability() -> None:
    with pytest.raises(UsageError, match="visible units = Softmax"):
        make_model("softmax_bernoulli").denoise(torch.zeros(1, 1, 1, 2), 0.1)
    with pytest.raises(UsageError, match=r"flip = 1.0; accepted: 0 < flip < 1"):
        make_model().denoise(torch.zeros(1, 1, 2, 2), 1.0)


@every_setting
def test_long_trajectories_end_in_the_model_and_repeat(setting: str) -> None:
    model = make_model(setting=setting, pixels="sample")
    exact = Enumeration(model.machine)
    frames = model.trajectory(2000, [1, 5, 60], generator())
    assert frames.shape == (3, 2000, *SHAPE)
    assert chi_square(exact.counts(frames[-1].flatten(1)), exact.joint().sum(1)) > ALPHA
    assert torch.equal(frames, model.trajectory(2000, [1, 5, 60], generator()))
    assert torch.equal(frames[1], model.trajectory(2000, [5], generator())[0])
    model.sample_steps = 60
    assert torch.equal(frames[-1], model.sample(2000, generator=generator()))
    assert not torch.equal(frames, model.trajectory(2000, [1, 5, 60], generator(1)))


def test_means_of_the_last_step_average_to_the_model() -> None:
    model = make_model(sample_steps=60)
    exact = Enumeration(model.machine)
    images = model.sample(2000, generator=generator())
    assert images.unique().numel() > 2
    check_means(images.flatten(1), exact.joint().sum(1) @ exact.v, torch.ones(4, dtype=torch.bool))


def test_reconstruction_and_filters() -> None:
    model, images = make_model(setting="centred"), all_images(SHAPE)
    exact = Enumeration(model.machine)
    with torch.no_grad():
        h = exact.hidden_given_visible(images.flatten(1)) @ exact.h
        expected = model.machine.visible_mean(h).view(-1, *SHAPE)
    torch.testing.assert_close(model.reconstruct(images), expected)
    assert torch.equal(model.filters()[2], model.machine.weight[:, 2].view(SHAPE))


# ---------------------------------------------------------------- what an update does


def stepped(model: RBM, v: Tensor, seeds: range, optimizer: torch.optim.Optimizer, schedule=None) -> None:
    """What the Trainer does, without its overhead."""
    for seed in seeds:
        optimizer.zero_grad()
        model.training_step(batch_of(model, v, seed), 0).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        if model.centred:
            model.machine.move_offsets(*model._statistics, model.offset_rate)


def test_weight_decay_is_for_weights_alone_and_momentum_is_torchs() -> None:
    model = make_model(weight_decay=0.3, optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9))
    optimizer = model.configure_optimizers()
    before = {name: p.detach().clone() for name, p in model.machine.named_parameters()}
    for p in model.machine.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.machine.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (1 - 0.5 * 0.3 if name == "weight" else 1))
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(map(id, model.parameters()))
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]


@pytest.mark.parametrize("target", [0.1, 0.6])
def test_a_sparsity_target_moves_the_mean_activity(target: float) -> None:
    model = make_model(setting="hot", sparsity_target=target, sparsity_weight=20.0)
    v = all_images(SHAPE).flatten(1)
    stepped(model, v, range(300), torch.optim.SGD(model.parameters(), lr=0.02))
    assert (model.machine.hidden_mean(v).mean(0) - target).abs().max() < 0.02


def test_the_sparsity_gradient_is_that_of_the_cross_entropy() -> None:
    model = make_model(setting="centred_cold", sparsity_target=0.2, sparsity_weight=0.7)
    v = all_images(SHAPE).flatten(1)
    exact = Enumeration(model.machine)

    def hand_written() -> Tensor:
        activity = (exact.machine.beta * (exact.machine.hidden_field(v) + exact.machine.hidden.bias)).sigmoid().mean(0)
        return -0.7 * (0.2 * activity.log() + 0.8 * (1 - activity).log()).sum()

    plain = make_model(setting="centred_cold")
    parameters = list(model.machine.parameters())
    with_wish = torch.autograd.grad(model.training_step(batch_of(model, v), 0), parameters)
    without = torch.autograd.grad(plain.training_step(batch_of(plain, v), 0), list(plain.machine.parameters()))
    wish = torch.autograd.grad(hand_written(), parameters, allow_unused=True)
    for ours, base, extra in zip(with_wish, without, wish):
        torch.testing.assert_close(ours - base, torch.zeros_like(ours) if extra is None else extra)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_units": 0}, "hidden_units = 0"),
        ({"weight_decay": -1.0}, r"weight_decay = -1.0"),
        ({"offset_rate": 0.0}, "offset_rate = 0.0"),
        ({"sparsity_target": 1.0}, "sparsity_target = 1.0"),
        ({"sparsity_weight": -0.1}, "sparsity_weight = -0.1"),
        ({"sample_steps": 0}, "sample_steps = 0"),
        ({"posterior_steps": 0}, "posterior_steps = 0"),
    ],
)
def test_bad_hyper_parameters_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RBM(**options)


def test_the_data_must_be_in_the_unit_range() -> None:
    with pytest.raises(UsageError, match="RBM takes images in"):
        RBM().build(ImageSpec((1, 2, 2), 0, (-1.0, 1.0)))


# ---------------------------------------------------------------- training, through the Trainer


def trained(model: RBM, updates: int, **options) -> tuple[RBM, BarsAndStripes]:
    data = BarsAndStripes(**{"batch_size": 14, **options})
    trainer = pl.Trainer(
        max_steps=updates, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, log_every_n_steps=10**9, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    return model, data


def divergence(model: RBM, data: BarsAndStripes) -> float:
    """KL(data || model) in nats, exactly."""
    images = torch.cat([image for image, _ in data.clean_batches("train")]).float() / 255
    return (-math.log(len(images)) - model.log_prob(images)).mean().item()


ADAM = partial(torch.optim.Adam, lr=0.02)
LEARNED = {  # and the KL to the data in nats that is asked for: twice what was seen
    "cd": (ContrastiveDivergence(5), True, 0.4),
    "pcd": (PersistentContrastiveDivergence(2, chains=100), True, 0.4),
    "pcd_not_centred": (PersistentContrastiveDivergence(2, chains=100), False, 1.0),
    "parallel_tempering": (ParallelTempering(1, chains=40, temperatures=4), True, 0.4),
}
UPDATES = 1200


@pytest.mark.parametrize("case", LEARNED)
def test_bars_and_stripes_are_learned(case: str) -> None:
    """14 of 512 images: independent pixels are log(512/14) = 3.6 nats away from the data, a perfect model 0."""
    phase, centred, most = LEARNED[case]
    data = BarsAndStripes()
    model = RBM(16, negative_phase=phase, centred=centred, offset_rate=0.05, weight_std=0.1).build(data.spec)
    model.should_log = lambda: False
    model.data_mean.fill_(0.5)
    assert divergence(model, data) == pytest.approx(math.log(512 / 14), abs=0.2)
    model.log_z = {}
    model.negative_phase.start(model.machine, model.data_mean)
    images = torch.cat([image for image, _ in data.clean_batches("train")]).flatten(1).float() / 255
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, UPDATES)
    stepped(model, images, range(UPDATES), optimizer, schedule)
    reached = divergence(model, data)
    print(f"{case}: KL = {reached:.3f} nats")
    assert reached < most
    if centred:
        assert model.machine.visible_offset.sub(0.5).abs().max() < 0.01  # the data's mean
        assert model.machine.hidden_offset.abs().max() > 0.1


@pytest.mark.parametrize("centred", [False, True])
def test_the_trainer_lowers_the_divergence(centred: bool) -> None:
    pl.seed_everything(0, verbose=False)
    phase = PersistentContrastiveDivergence(2, chains=100)
    model = RBM(16, negative_phase=phase, centred=centred, offset_rate=0.05, weight_std=0.1, optimizer=ADAM)
    model, data = trained(model, 80)
    assert divergence(model, data) < 3.3
    if centred:
        assert model.machine.visible_offset.min() > 0.4


def test_a_first_update_starts_from_the_datas_means() -> None:
    model, _ = trained(RBM(4, optimizer=partial(torch.optim.SGD, lr=0.0)), 1)
    torch.testing.assert_close(model.data_mean, torch.full((9,), 0.5))
    torch.testing.assert_close(model.machine.visible.bias.data, torch.zeros(9), atol=1e-6, rtol=0)


def test_a_learned_scale_finds_that_of_the_data() -> None:
    model = RBM(
        4, visible=partial(Gaussian, learn_sigma=True), optimizer=partial(torch.optim.Adam, lr=0.03),
        negative_phase=PersistentContrastiveDivergence(1, chains=100), weight_decay=10.0,
    )  # fmt: skip
    model, _ = trained(model, 200)
    # weights that decay leave a Gaussian with the pixels' own mean and deviation
    torch.testing.assert_close(model.machine.visible.sigma.detach(), torch.full((9,), 0.5), atol=0.08, rtol=0)
    torch.testing.assert_close(model.machine.visible.mu.detach(), torch.full((9,), 0.5), atol=0.08, rtol=0)


def test_log_prob_follows_further_training() -> None:
    model, _ = trained(RBM(4, optimizer=ADAM), 2)
    images = all_images((1, 3, 3)).float()
    assert model.log_prob(images).logsumexp(0).item() == pytest.approx(0, abs=1e-4)
    model, _ = trained(model, 20)
    assert model.log_prob(images).logsumexp(0).item() == pytest.approx(0, abs=1e-4)


def test_two_models_do_not_share_chains() -> None:
    phase = PersistentContrastiveDivergence(1, chains=10)
    first, second = RBM(4, negative_phase=phase), RBM(4, negative_phase=phase)
    trained(first, 2)
    assert phase.chains.state is None
    assert second.negative_phase.chains.state is None
    assert first.negative_phase.chains.state.shape == (10, 9)
    assert isinstance(first.machine.visible, Bernoulli)
