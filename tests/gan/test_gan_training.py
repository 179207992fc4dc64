"""The GAN module: algorithm 1 against a plain loop, accumulation, EMA, clipping, schedules, precision, divergence."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from lit_gen.core.errors import DivergenceError, UsageError
from lit_gen.core.images import UNLABELLED, ImageBatch, ImageSpec
from lit_gen.core.module import gradient_norm
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.gan import (
    GAN,
    R1,
    DCGANDiscriminator,
    DCGANGenerator,
    FeatureMatching,
    GradientPenalty,
    HistoricalAveraging,
    OneSidedLabelSmoothing,
    Penalty,
    Wasserstein,
    WeightClipping,
)

SPEC = ImageSpec((1, 16, 16), 4, (-1.0, 1.0))
IMAGES = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.9))


def batch(start, rows, seed=None):
    key = BatchKey(100 + start if seed is None else seed, 0, rows)
    return ImageBatch(IMAGES[start : start + rows].clone(), torch.arange(rows) % 4, key)


class Lists(pl.LightningDataModule):
    """Yields the given lists of batches, as the training loader of a GAN does."""

    def __init__(self, lists):
        super().__init__()
        self.lists, self.spec = lists, SPEC

    def train_dataloader(self):
        return DataLoader(self.lists, batch_size=None)

    def val_dataloader(self):
        return DataLoader([batch(0, 5), batch(5, 3)], batch_size=None)

    test_dataloader = val_dataloader


def trainer(**options):
    options = {"max_epochs": 1, "limit_val_batches": 0, "log_every_n_steps": 1, "accelerator": "cpu"} | options
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**quiet, **options)


def small(**options):
    normalisation = options.pop("normalisation", "none")
    networks = {
        "generator": partial(DCGANGenerator, width=4, normalisation=normalisation),
        "discriminator": partial(DCGANDiscriminator, width=4, normalisation=normalisation),
    }
    return GAN(**networks | {"optimizer_g": ADAM, "optimizer_d": ADAM, "latent_dim": 5} | options)


def fit(model, lists, **options):
    run = trainer(**options)
    run.fit(model, datamodule=Lists(lists))
    return run


def weights(model):
    networks = {"g": model.generator, "d": model.discriminator}
    return {f"{k}.{n}": p.detach().clone() for k, net in networks.items() for n, p in net.named_parameters()}


def assert_same(left, right, tolerance=0.0):
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


# ---------------------------------------------------------------- the algorithm


def test_wgan_gp_equals_algorithm_1_written_out():
    lists = [[batch(8 * (3 * step + k), 8) for k in range(3)] for step in range(2)] + [[batch(48, 8)]]
    model = small(objective=Wasserstein(), penalties=[GradientPenalty()], discriminator_steps=3, normalisation="layer")
    run = fit(model, lists)
    assert run.global_step == 3  # updates of G
    assert model.discriminator_updates == 7

    plain = small(normalisation="layer").build(SPEC)
    generator, critic = plain.generator, plain.discriminator
    optimizer_g, optimizer_d = ADAM(generator.parameters()), ADAM(critic.parameters())
    for batches in lists:
        for real, _, key in batches:  # n_critic times
            noise = RowNoise(key, 8, "discriminator")
            fake = generator(noise.normal(5)).detach()
            epsilon = noise.uniform(1, 1, 1)
            between = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
            (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            penalty = 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
            optimizer_d.zero_grad()
            (critic(fake).mean() - critic(real).mean() + penalty).backward()
            optimizer_d.step()
        optimizer_g.zero_grad()
        (-critic(generator(RowNoise(batches[-1].key, 8, "generator").normal(5))).mean()).backward()
        optimizer_g.step()
    assert_same(weights(model), weights(plain), tolerance=1e-6)


@pytest.mark.parametrize("fresh", [True, False])
def test_dcgan_equals_the_plain_loop_with_fresh_or_reused_codes(fresh):
    lists = [[batch(0, 8)], [batch(8, 8)]]
    model = small(normalisation="batch", fresh_noise=fresh)
    fit(model, lists)
    plain = small(normalisation="batch").build(SPEC)
    generator, discriminator = plain.generator, plain.discriminator
    optimizer_g, optimizer_d = ADAM(generator.parameters()), ADAM(discriminator.parameters())
    for ((real, _, key),) in lists:
        fake = generator(RowNoise(key, 8, "discriminator").normal(5))
        optimizer_d.zero_grad()
        on_real, on_fake = discriminator(real), discriminator(fake.detach())
        (F.softplus(-on_real).mean() + F.softplus(on_fake).mean()).backward()
        optimizer_d.step()
        if fresh:
            fake = generator(RowNoise(key, 8, "generator").normal(5))
        optimizer_g.zero_grad()
        F.softplus(-discriminator(fake)).mean().backward()
        optimizer_g.step()
    assert_same(weights(model), weights(plain), tolerance=1e-6)


class Watch(pl.Callback):
    """Checks, at every optimizer step, which gradients exist and which weights have moved."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, model, optimizer):
        player = "g" if optimizer is model.optimizers()[0].optimizer else "d"
        grads = {n: p.grad.clone() for n, p in model.discriminator.named_parameters() if p.grad is not None}
        if player == "g":  # G's backward pass has added nothing to D's gradients
            assert all(torch.equal(grads[n], self.grads[n]) for n in self.grads)
        self.grads = grads
        self.seen.append(player)


def test_updates_of_g_leave_the_gradients_of_d_alone():
    watch = Watch()
    model = small(discriminator_steps=2)
    fit(model, [[batch(0, 8), batch(8, 8)], [batch(16, 8)]], callbacks=[watch])
    assert watch.seen == ["d", "d", "g", "d", "g"]
    assert all(p.requires_grad for p in model.parameters())


# ---------------------------------------------------------------- accumulation


class Shared(GAN):
    """Micro-batches that draw rows of one large batch's noise, so that the two can be compared."""

    rows = 8

    def noise(self, batch, name="model"):
        key = BatchKey(1, batch.key.seed, self.rows)  # here the key's seed holds the first row
        return RowNoise(key, batch.image.shape[0], name)


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (2, 2, 4)])
@pytest.mark.parametrize("penalties", [[], [GradientPenalty(), R1()]], ids=["plain", "penalties"])
def test_accumulated_gradients_equal_those_of_the_large_batch(sizes, penalties):
    def run(sizes, accumulate):
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        networks = {"generator": partial(DCGANGenerator, width=4, normalisation="none")}
        networks["discriminator"] = partial(DCGANDiscriminator, width=4, normalisation="layer")
        model = Shared(
            **networks, penalties=penalties, optimizer_g=ADAM, optimizer_d=ADAM, latent_dim=5, accumulate=accumulate
        )
        sgd = partial(torch.optim.SGD, lr=0.1)  # linear in the gradient: no normalisation hides a wrong factor
        model.make_optimizers = (sgd, sgd)
        micro = [batch(start, rows, seed=start) for start, rows in zip(starts, sizes)]
        fit(model, [micro])
        return weights(model), weights(Shared(**networks, latent_dim=5).build(SPEC))

    (large, before), (small_batches, _) = run((8,), 1), run(sizes, 3)
    moved = {name[0] for name in large if (large[name] - before[name]).abs().max() > 1e-4}
    assert moved == {"g", "d"}
    assert_same(large, small_batches, tolerance=1e-6)


# ---------------------------------------------------------------- parts


class Counting(Penalty):
    name = "counting"

    def value(self, discriminator, real, fake, label, noise):
        self.calls = getattr(self, "calls", 0) + 1
        return discriminator.head.bias.sum()


def test_a_lazy_penalty_is_rare_and_as_much_stronger():
    penalty = Counting(weight=2.0, interval=3)
    sgd = partial(torch.optim.SGD, lr=1.0)
    model = small(objective=Wasserstein(), penalties=[penalty], discriminator_steps=7, optimizer_d=sgd)
    model.build(SPEC)
    before = model.discriminator.head.bias.item()
    fit(model, [[batch(8 * k, 8) for k in range(7)]])
    assert penalty.calls == 3  # updates 0, 3 and 6
    # the bias has no other gradient under the Wasserstein objective
    assert model.discriminator.head.bias.item() == pytest.approx(before - 3 * 2.0 * 3, abs=1e-5)


def test_the_constraint_holds_after_training():
    model = small(objective=Wasserstein(), constraint=WeightClipping(0.01))
    fit(model, [[batch(0, 8)]] * 2)
    assert max(p.abs().max() for p in model.discriminator.parameters()) <= 0.01
    assert max(p.abs().max() for p in model.generator.parameters()) > 0.01


def test_feature_matching_replaces_the_generators_objective():
    class Forbidden(Wasserstein):
        def generator_loss(self, fake_logits):
            raise AssertionError("the generator's objective was used")

    model = small(objective=Forbidden(), tricks=[FeatureMatching()], normalisation="batch")
    before = weights(model.build(SPEC))
    run = fit(model, [[batch(0, 8)]])
    assert any(not torch.equal(value, before[name]) for name, value in weights(model).items() if name[0] == "g")
    assert run.callback_metrics["train/loss_g"] >= 0


def test_feature_matching_beside_the_objective_adds_to_it():
    losses = []
    for tricks in ([], [FeatureMatching(2.0)], [FeatureMatching(2.0, replace=False)]):
        sgd = partial(torch.optim.SGD, lr=0.0)
        run = fit(small(tricks=tricks, optimizer_d=sgd), [[batch(0, 8)]])
        losses.append(run.callback_metrics["train/loss_g"])
    torch.testing.assert_close(losses[2], losses[0] + losses[1])


def test_all_tricks_train_together_and_conditionally():
    tricks = [FeatureMatching(), HistoricalAveraging(1e-3), OneSidedLabelSmoothing()]
    model = small(tricks=tricks, conditional=True, normalisation="batch")
    fit(model, [[batch(0, 8)], [batch(8, 8)]])
    assert [int(memory.steps) for memory in (model.memories_g[1], model.memories_d[1])] == [2, 2]
    assert any(key.startswith("memories_d.1.mean_") for key in model.state_dict())
    z, label = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    assert not torch.equal(model.from_latent(z, label), model.from_latent(z, label.flip(0)))


def test_ema_follows_the_generator_alone_and_is_what_samples():
    class History(pl.Callback):
        def __init__(self):
            self.weights = []

        def on_train_batch_end(self, trainer, model, *args):
            self.weights.append([p.detach().clone() for p in model.generator.parameters()])

    history = History()
    model = small(ema_decay=0.5, discriminator_steps=2).build(SPEC)
    expected = [p.detach().clone() for p in model.generator.parameters()]
    fit(model, [[batch(0, 8), batch(8, 8)]] * 4, callbacks=[history])
    for t, new in enumerate(history.weights):
        decay = min(0.5, (1 + t) / (10 + t))
        expected = [decay * e + (1 - decay) * n for e, n in zip(expected, new)]
    for average, value in zip(model.ema.average.parameters(), expected):
        torch.testing.assert_close(average, value)
    assert not any("discriminator" in name for name, _ in model.ema.named_parameters())
    z = torch.randn(3, 5)
    assert torch.equal(model.from_latent(z), model.ema.average(z))
    assert not torch.equal(model.from_latent(z), model.generator(z))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_to_the_norm(precision):
    class Norms(pl.Callback):
        def on_train_batch_end(self, trainer, model, *args):
            for network in (model.generator, model.discriminator):  # the gradients of the last step are still there
                assert gradient_norm(list(network.parameters())).item() == pytest.approx(1e-4, rel=1e-2)

    model = small(gradient_clip=1e-4, objective=Wasserstein())
    run = fit(model, [[batch(0, 8)]] * 3, callbacks=[Norms()], precision=precision)
    assert run.callback_metrics["train/grad_norm_d"] > 1e-3  # logged as it was before


def test_schedulers_step_once_for_each_update_of_g():
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    model = small(scheduler_g=halve, scheduler_d=halve, discriminator_steps=2)
    run = fit(model, [[batch(0, 8), batch(8, 8)]] * 3)
    assert [optimizer.param_groups[0]["lr"] for optimizer in run.optimizers] == [1e-3 / 8] * 2


def test_bf16_trains_with_a_float32_penalty():
    seen = []

    class Spy(GradientPenalty):
        def value(self, discriminator, real, fake, label, noise):
            value = super().value(discriminator, real, fake, label, noise)
            seen.append((torch.is_autocast_enabled("cpu"), fake.dtype, value.dtype))
            return value

    model = small(objective=Wasserstein(), penalties=[Spy()], normalisation="layer", ema_decay=0.9)
    fit(model, [[batch(0, 8)]] * 2, precision="bf16-mixed")
    assert seen == [(False, torch.float32, torch.float32)] * 2
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert model.sample(2).dtype == torch.float32


def test_compile_keeps_the_keys_of_the_state_dict():
    plain, compiled = small().build(SPEC), small(compile=True, ema_decay=0.9).build(SPEC)
    assert compiled.generator._compiled_call_impl is not None
    assert compiled.discriminator._compiled_call_impl is None  # no second derivative otherwise
    without_average = [key for key in compiled.state_dict() if not key.startswith("ema.")]
    assert without_average == list(plain.state_dict())
    with torch.compiler.set_stance("force_eager"):
        fit(compiled, [[batch(0, 8)]])


# ---------------------------------------------------------------- logging, evaluation, checkpoints


def test_everything_promised_is_logged():
    run = fit(small(penalties=[R1()], ema_decay=0.9), [[batch(0, 8)]] * 2, limit_val_batches=1.0)
    names = {"loss_d", "loss_g", "d_real", "d_fake", "grad_norm_d", "grad_norm_g", "r1"}
    assert {f"train/{name}" for name in names} | {"val/loss_d", "val/d_real", "val/d_fake"} == set(run.callback_metrics)
    assert 0 < run.callback_metrics["train/d_real"] < 1  # a probability


def test_validation_averages_over_rows():
    model = small().build(SPEC)
    (logged,) = trainer(limit_val_batches=1.0).validate(model, datamodule=Lists([]), verbose=False)
    model.eval()
    scores = torch.cat([model.discriminator(batch(0, 5).image), model.discriminator(batch(5, 3).image)])
    assert logged["val/d_real"] == pytest.approx(torch.sigmoid(scores).mean().item(), abs=1e-6)


def test_samples_survive_a_checkpoint(tmp_path):
    model = small(ema_decay=0.9, tricks=[HistoricalAveraging()])
    run = fit(model, [[batch(0, 8)]] * 3)
    run.save_checkpoint(tmp_path / "x.ckpt")
    loaded = GAN.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    assert loaded.discriminator_updates == 3
    draw = [m.sample(4, generator=torch.Generator().manual_seed(5)) for m in (model, loaded)]
    assert torch.equal(*draw)
    assert draw[0].shape == (4, 1, 16, 16)
    assert draw[0].abs().max() <= 1


def test_sampling_leaves_the_mode_and_the_running_statistics_alone():
    model = small(normalisation="batch").build(SPEC).train()
    before = [b.clone() for b in model.generator.buffers()]
    many = model.sample(300)
    assert model.generator.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.generator.buffers()))
    assert many.shape[0] == 300
    assert not many.requires_grad


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(("index", "name"), [(0, "loss_d"), (1, "loss_d")])
def test_divergence_stops_before_the_weights_are_touched(index, name):
    model, bad = small(), batch(8, 8)
    bad.image[3] = float("nan")
    lists = [[batch(0, 8)], [batch(16, 8)]]
    lists[index] = [bad]
    with pytest.raises(DivergenceError, match=f"{name} = nan .* at step {index}"):
        fit(model, lists)
    good = small()
    fit(good, lists[:index]) if index else good.build(SPEC)
    assert_same(weights(model), weights(good))


def test_divergence_of_the_generator_is_named():
    class Exploding(Wasserstein):
        def generator_loss(self, fake_logits):
            return fake_logits.mean() * float("inf")

    with pytest.raises(DivergenceError, match="loss_g"):
        fit(small(objective=Exploding()), [[batch(0, 8)]])


def test_conditional_training_refuses_unlabelled_images():
    unlabelled = batch(0, 8)
    unlabelled.label[2] = UNLABELLED
    with pytest.raises(UsageError, match="unlabelled"):
        fit(small(conditional=True), [[unlabelled]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator_steps": 0}, "discriminator_steps = 0; accepted"),
        ({"accumulate": 0}, "accumulate = 0; accepted"),
        ({"latent_dim": 0}, "latent_dim = 0; accepted"),
        ({"gradient_clip": 0.0}, r"gradient_clip = 0\.0; accepted"),
        ({"ema_decay": 1.0}, r"ema_decay = 1\.0; accepted"),
        ({"accumulate": 2, "fresh_noise": False}, "fresh_noise = False with accumulate = 2; accepted"),
        ({"tricks": [OneSidedLabelSmoothing()], "objective": Wasserstein()}, "Wasserstein; accepted"),
        ({"penalties": [GradientPenalty()], "normalisation": "batch"}, "with batch norm; accepted"),
    ],
)
def test_bad_values_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        small(**options).build(SPEC)


def test_data_without_labels_or_in_another_range_is_refused():
    with pytest.raises(UsageError, match="conditional = True"):
        small(conditional=True).build(ImageSpec((1, 16, 16), 0, (-1.0, 1.0)))
    with pytest.raises(UsageError, match="value_range"):
        small().build(ImageSpec((1, 16, 16), 4, (0.0, 1.0)))


def test_conditional_samples_need_a_label_for_each_code():
    model = small(conditional=True).build(SPEC)
    assert model.sample(3).shape == (3, 1, 16, 16)
    with pytest.raises(UsageError, match="label"):
        model.from_latent(torch.randn(2, 5))
