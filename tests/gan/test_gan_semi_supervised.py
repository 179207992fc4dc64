"""The semi-supervised GAN: its losses, networks and updates written out, digits with few labels, two processes, mistakes."""

import copy
import dataclasses
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.strategies import DDPStrategy

from lit_gen.core.errors import UsageError
from lit_gen.core.images import UNLABELLED, ImageSpec
from lit_gen.data import Digits
from lit_gen.gan import MLPGenerator, SemiSupervisedClassifier, SemiSupervisedGAN, SemiSupervisedGenerator
from lit_gen.gan.semi_supervised_losses import feature_matching_loss, log_evidence, unsupervised_loss
from lit_gen.gan.semi_supervised_networks import GaussianNoise, WeightNormLinear
from tests.conftest import differing_weights

ADAM = partial(torch.optim.Adam, lr=3e-3, betas=(0.5, 0.999), eps=1e-4)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trainer(**options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**quiet, **({"accelerator": "cpu", "limit_val_batches": 0, "log_every_n_steps": 1} | options))


def narrow(kind=SemiSupervisedGAN, **options):
    networks = {
        "classifier": partial(SemiSupervisedClassifier, hidden=(32, 16)),
        "generator": partial(SemiSupervisedGenerator, hidden=(32,)),
    }
    return kind(**networks | {"optimizer_g": ADAM, "optimizer_d": ADAM, "latent_dim": 8} | options)


def digits(**options):
    return Digits(value_range="symmetric", **{"num_labelled": 20, "batch_size": 32} | options)


# ---------------------------------------------------------------- losses


def test_losses_are_those_of_a_softmax_over_one_class_more():
    real, fake = 30 * random(6, 4), 30 * random(6, 4, seed=1)  # large enough to overflow an exponential

    def with_generated(logits):
        return F.pad(logits, (0, 1)).double().log_softmax(dim=1)

    not_generated = with_generated(real)[:, :4].logsumexp(dim=1)
    expected = -0.5 * not_generated.mean() - 0.5 * with_generated(fake)[:, 4].mean()
    torch.testing.assert_close(unsupervised_loss(real, fake).double(), expected)
    torch.testing.assert_close(
        torch.sigmoid(log_evidence(real / 30)), real.div(30).exp().sum(1) / (1 + real.div(30).exp().sum(1))
    )
    # the joint cross entropy of a labelled image is that of its class among the K, and that of being real
    label = torch.arange(6) % 4
    joint = F.nll_loss(with_generated(real), label)
    torch.testing.assert_close(F.cross_entropy(real.double(), label) - not_generated.mean(), joint)


def test_the_best_discriminator_is_the_share_of_the_data_and_its_loss_the_jensen_shannon_divergence():
    # four kinds of images; a table of logits is free to be any discriminator
    data, generated = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.1, 0.1, 0.3, 0.5])
    table = torch.zeros(4, 3, requires_grad=True)

    def rows(p):
        return torch.arange(4).repeat_interleave((10 * p).round().long())

    optimizer = torch.optim.LBFGS([table], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = unsupervised_loss(table[rows(data)], table[rows(generated)])
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(
        torch.sigmoid(log_evidence(table.detach())), data / (data + generated), atol=1e-3, rtol=0
    )
    middle = (data + generated) / 2
    divergence = 0.5 * ((data * (data / middle).log()).sum() + (generated * (generated / middle).log()).sum())
    assert closure().item() == pytest.approx(torch.tensor(2.0).log().item() - divergence.item(), abs=1e-5)


def test_feature_matching_is_the_mean_over_features_of_the_squared_distance():
    assert feature_matching_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])) == pytest.approx(2.5)


# ---------------------------------------------------------------- networks


def test_weight_norm_is_that_of_torch_and_starts_from_data():
    layer, x = WeightNormLinear(5, 3, learn_scale=True), random(200, 5) * 3 + 1
    y = layer.initialise(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3))
    plain = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 3))
    with torch.no_grad():
        plain.parametrizations.weight.original0.copy_(layer.scale[:, None])
        plain.parametrizations.weight.original1.copy_(layer.direction)
        plain.bias.copy_(layer.bias)
    torch.testing.assert_close(layer(x), plain(x))
    layer(x).square().mean().backward()
    plain(x).square().mean().backward()
    torch.testing.assert_close(layer.direction.grad, plain.parametrizations.weight.original1.grad)
    torch.testing.assert_close(layer.scale.grad, plain.parametrizations.weight.original0.grad[:, 0])


def test_classifier_is_the_authors_and_starts_with_unit_variance():
    classifier = SemiSupervisedClassifier((1, 28, 28), 10)
    linear = [layer for layer in classifier.modules() if isinstance(layer, WeightNormLinear)]
    assert [layer.direction.shape[1] for layer in linear] == [784, 1000, 500, 250, 250, 250]
    assert [isinstance(layer.scale, torch.nn.Parameter) for layer in linear] == [False] * 5 + [True]
    noises = [layer.std for layer in classifier.modules() if isinstance(layer, GaussianNoise)]
    assert noises == [0.3, 0.5, 0.5, 0.5, 0.5, 0.5]
    images = torch.rand(300, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    classifier.initialise(images)
    logits = classifier(images)
    torch.testing.assert_close(logits.std(0), torch.ones(10), atol=0.2, rtol=0)
    assert not torch.equal(logits, classifier(images))  # noise
    classifier.eval()
    assert torch.equal(classifier(images), classifier(images))
    for black in (GaussianNoise(0.5), classifier.trunk[0]):  # noise in units of pixels in [0, 1]
        std = (black.train()(torch.zeros(4000)) - 0).std()
        assert std == pytest.approx(black.std, rel=0.05)


# ---------------------------------------------------------------- training


class Watched(SemiSupervisedGAN):
    """Remembers the networks that training starts from, and the batches of every update of D."""

    def on_fit_start(self):
        super().on_fit_start()
        self.start, self.seen = copy.deepcopy((self.discriminator, self.generator)), []

    def labelled_batch(self, batch):
        self.seen.append((batch, super().labelled_batch(batch)))
        return self.seen[-1][1]


def test_one_step_is_both_updates_written_out():
    quiet = partial(SemiSupervisedClassifier, hidden=(32, 16), input_noise=0.0, hidden_noise=0.0)
    sgd = partial(torch.optim.SGD, lr=0.1)
    model = narrow(
        Watched, classifier=quiet, optimizer_g=sgd, optimizer_d=sgd, labelled_batch_size=40, unsupervised_weight=0.7
    )
    run = trainer(max_steps=2)
    run.fit(model, datamodule=digits(batch_size=16))
    assert (run.global_step, model.discriminator_updates, len(model.seen)) == (2, 2, 2)

    network, generator = model.start
    optimizer_d, optimizer_g = sgd(network.parameters()), sgd(generator.parameters())
    averaged = copy.deepcopy(network)
    for step, (batch, labelled) in enumerate(model.seen):
        optimizer_d.zero_grad()
        fake = generator(model.noise(batch, "discriminator").normal(8)).detach()
        supervised = F.cross_entropy(network(labelled.image), labelled.label)
        (supervised + 0.7 * unsupervised_loss(network(batch.image), network(fake))).backward()
        optimizer_d.step()
        for mean, weight in zip(averaged.parameters(), network.parameters()):
            mean.data.lerp_(weight.data, 9 / (10 + step))
        optimizer_g.zero_grad()
        fake = generator(model.noise(batch, "generator").normal(8))
        (network.features(batch.image).mean(0) - network.features(fake).mean(0)).square().mean().backward()
        optimizer_g.step()
    pairs = (model.discriminator, network), (model.generator, generator), (model.classifier, averaged)
    for trained, written in pairs:
        for (name, left), right in zip(trained.named_parameters(), written.parameters()):
            torch.testing.assert_close(left, right, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("labels", "size"), [(20, 50), (20, 20), (30, 16)])
def test_labelled_batches_are_permutations_of_the_labelled_images_and_depend_on_the_key_alone(labels, size):
    model = narrow(Watched, labelled_batch_size=size)
    data = digits(num_labelled=labels)
    trainer(max_steps=2).fit(model, datamodule=data)
    assert len(model.labelled.image) == model.labelled_images == labels
    visible = data.split("train").label
    assert sorted(model.labelled.label.tolist()) == sorted(visible[visible != UNLABELLED].tolist())
    transformed = data.transform("val")(model.labelled).image.flatten(1)
    for _, labelled in model.seen:
        assert len(labelled.image) == size
        same = (labelled.image.flatten(1)[:, None] == transformed).all(dim=2)  # [size, labels]
        assert torch.equal(same.any(dim=1), torch.ones(size, dtype=torch.bool))
        assert torch.equal(model.labelled.label[same.int().argmax(dim=1)], labelled.label)
        times = same.sum(dim=0)
        assert times.max() - times.min() <= 1
    (batch, first), (_, second) = model.seen
    assert not torch.equal(first.image, second.image)
    assert torch.equal(SemiSupervisedGAN.labelled_batch(model, batch).image, first.image)


def test_only_training_images_that_are_not_withheld_lend_their_labels():
    model = narrow(Watched, labelled_batch_size=20)
    data = digits()
    trainer(max_steps=1).fit(model, datamodule=data)
    train = data.split("train")
    known = train.label != UNLABELLED
    assert known.sum() == 20
    (_, labelled), *_ = model.seen
    (pixels,) = train.images.stream([train.index[known]])
    sums = pixels.float().div(127.5).sub(1).flatten(1).sum(1)
    torch.testing.assert_close(labelled.image.flatten(1).sum(1).sort().values, sums.sort().values)


# ---------------------------------------------------------------- evaluation


def test_errors_are_counted_over_the_whole_split():
    model, data = narrow(), digits(eval_batch_size=50)
    run = trainer(max_steps=3)
    run.fit(model, datamodule=data)
    tested = run.test(model, datamodule=data, verbose=False)[0]
    images, labels = (torch.cat(part) for part in list(zip(*data.eval_batches("test")))[:2])
    probabilities = model.classify(images)
    wrong = int((probabilities.argmax(1) != labels).sum())
    assert tested["test/errors"] == wrong
    assert tested["test/error"] == pytest.approx(wrong / 397)
    assert tested["test/accuracy"] == pytest.approx(1 - wrong / 397)
    assert tested["test/cross_entropy"] == pytest.approx(F.nll_loss(probabilities.log(), labels).item(), abs=1e-4)
    real = model.classifier.eval()(images).detach()
    assert tested["test/loss_real"] == pytest.approx(F.softplus(-log_evidence(real)).mean().item(), abs=1e-4)
    assert tested["test/loss_fake"] > 0
    assert model.estimators["test/errors"] == {"images": 397, "labelled": 20, "unit": "wrong predictions"}
    predicted = run.predict(model, datamodule=data)
    torch.testing.assert_close(torch.cat([batch["class_prob"] for batch in predicted]), probabilities)


def test_learns_digits_from_few_labels_better_than_from_these_alone():
    """Measured with two choices of twenty labels: 55 and 74 errors of 397, against 94 and 96 of the same classifier alone."""
    errors = {}
    for weight in (5.0, 0.0):
        pl.seed_everything(0)
        model = SemiSupervisedGAN(
            classifier=partial(SemiSupervisedClassifier, hidden=(200, 100)),
            generator=partial(SemiSupervisedGenerator, hidden=(100,)),
            optimizer_g=ADAM,
            optimizer_d=ADAM,
            latent_dim=20,
            labelled_batch_size=20,
            unsupervised_weight=weight,
            discriminator_ema_decay=0.999,
        )
        run, data = trainer(max_epochs=30, log_every_n_steps=1000), digits(batch_size=40, val_size=0)
        run.fit(model, datamodule=data)
        errors[weight] = run.test(model, datamodule=data, verbose=False)[0]["test/errors"]
    assert errors[5.0] < 0.8 * errors[0.0], errors


# ---------------------------------------------------------------- processes, resuming


class Save(pl.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_end(self, trainer, model):
        if trainer.is_global_zero:
            values = {key: value.item() for key, value in trainer.callback_metrics.items()}
            torch.save((model.state_dict(), trainer.global_step, values), self.path)


def train_in(processes, batch_size, path):
    pl.seed_everything(7)
    sgd = partial(torch.optim.SGD, lr=0.05)  # a wrong factor would show; Adam hides it
    model = narrow(
        classifier=partial(SemiSupervisedClassifier, hidden=(32, 16), input_noise=0.0, hidden_noise=0.0),
        generator=partial(MLPGenerator, hidden=(32,), normalisation="none"),  # batch norm is over one process
        optimizer_g=sgd,
        optimizer_d=sgd,
        labelled_batch_size=15,
        discriminator_ema_decay=0.9,
    )
    data = digits(subset_size=22, num_labelled=10, batch_size=batch_size, eval_batch_size=64)  # rows 8, 8 and 6
    gloo = DDPStrategy(find_unused_parameters=True, start_method="spawn", process_group_backend="gloo")
    run = trainer(
        devices=processes,
        strategy=gloo if processes > 1 else "auto",
        use_distributed_sampler=False,
        max_epochs=1,
        limit_val_batches=1.0,
        num_sanity_val_steps=0,
        callbacks=[Save(path)],
    )
    run.fit(model, datamodule=data)
    return torch.load(path, weights_only=True)


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    one, steps, logged_one = train_in(1, 8, tmp_path / "one.pt")
    two, steps_of_two, logged_two = train_in(2, 4, tmp_path / "two.pt")
    assert steps == steps_of_two == 3
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert logged_one["val/errors"] == logged_two["val/errors"]
    for name in ("error", "accuracy", "cross_entropy", "loss_real", "loss_fake"):
        assert logged_two[f"val/{name}"] == pytest.approx(logged_one[f"val/{name}"], abs=1e-5)


def test_a_resumed_run_ends_with_the_weights_of_the_uninterrupted_one(tmp_path):
    def run(epochs, **options):
        pl.seed_everything(3)
        model = narrow(labelled_batch_size=30)
        fitted = trainer(max_epochs=epochs, limit_train_batches=4)
        fitted.fit(model, datamodule=digits(), **options)
        return model, fitted

    whole, _ = run(2)
    first, fitted = run(1)
    fitted.save_checkpoint(tmp_path / "first.ckpt")
    resumed, _ = run(2, ckpt_path=tmp_path / "first.ckpt", weights_only=False)
    assert (whole.discriminator_updates, first.discriminator_updates, resumed.discriminator_updates) == (8, 4, 8)
    assert differing_weights(whole.state_dict(), first.state_dict()) != []
    assert differing_weights(whole.state_dict(), resumed.state_dict()) == []
    loaded = SemiSupervisedGAN.load_from_checkpoint(tmp_path / "first.ckpt", weights_only=False)
    assert loaded.labelled_images == 20


# ---------------------------------------------------------------- mistakes


class Withheld(Digits):
    """Digits without the labels of some splits."""

    def __init__(self, *splits, **options):
        super().__init__(**options)
        self.withheld = splits

    def read_splits(self):
        splits = super().read_splits()
        for name in self.withheld:
            splits[name] = dataclasses.replace(splits[name], label=torch.full_like(splits[name].label, UNLABELLED))
        return splits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim = 0; accepted: latent_dim >= 1"),
        ({"labelled_batch_size": 0}, "labelled_batch_size = 0; accepted: labelled_batch_size >= 1"),
        ({"unsupervised_weight": -1.0}, "unsupervised_weight = -1.0; accepted: unsupervised_weight >= 0"),
        ({"discriminator_ema_decay": 1.0}, "discriminator_ema_decay = 1.0; accepted: 0 <= "),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(UsageError, match=message) as error:
        narrow(**options)
    assert "\n" not in str(error.value)


def test_networks_name_their_options():
    for options in ({"hidden": ()}, {"input_noise": -0.1}, {"hidden_noise": -0.1}):
        (name,) = options
        with pytest.raises(UsageError, match=f"^{name} = "):
            SemiSupervisedClassifier((1, 8, 8), 10, **options)


def test_data_without_labels_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"^SemiSupervisedGAN is a classifier; the data has no labels$"):
        narrow().build(ImageSpec((1, 8, 8), 0, (-1.0, 1.0)))
    with pytest.raises(UsageError, match=r"^no training image has a label .*num_labelled >= 1$"):
        trainer(max_steps=1).fit(narrow(), datamodule=Withheld("train", value_range="symmetric"))
    model = narrow()
    run = trainer(max_steps=1)
    run.fit(model, datamodule=digits())
    with pytest.raises(UsageError, match=r"^no image of the test split has a label"):
        run.test(model, datamodule=Withheld("test", value_range="symmetric"), verbose=False)
