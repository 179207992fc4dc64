"""Every model of the family: training, evaluation, sampling, and what is particular to each."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from small_vae import SMALL, SPEC, Batches, make_batch

from lit_gen.core.errors import DivergenceError, UsageError
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import BatchKey, RowNoise
from lit_gen.vae import (
    IWAE,
    VAE,
    Autoencoder,
    ConditionalVAE,
    DenoisingAutoencoder,
    EncoderDecoder,
    InpaintingVAE,
    MLPEncoder,
    SemiSupervisedVAE,
)
from lit_gen.vae.inpainting_vae import random_mask

FEW = {"nll_samples": 10}
MODELS = {
    "autoencoder": partial(Autoencoder, **SMALL),
    "denoising": partial(DenoisingAutoencoder, **SMALL),
    "vae": partial(VAE, **SMALL, **FEW, samples=2, beta=2.0, kl_warmup=3, posterior="softplus"),
    "vae_ema": partial(VAE, **SMALL, **FEW, ema_decay=0.9, pixels="sample"),
    "iwae": partial(IWAE, **SMALL, **FEW, samples=3),
    "iwae_dreg": partial(IWAE, **SMALL, **FEW, samples=3, gradient="doubly_reparameterized"),
    "conditional": partial(ConditionalVAE, **SMALL, **FEW),
    "m2": partial(SemiSupervisedVAE, **SMALL, **FEW, classifier=partial(MLPEncoder, hidden=[8])),
    "inpainting": partial(InpaintingVAE, **SMALL, **FEW, context=3),
}


@pytest.fixture
def batch() -> ImageBatch:
    return make_batch()


def make_trainer(folder: Path, **options: object) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(accelerator="cpu", default_root_dir=folder, log_every_n_steps=1, **quiet, **options)


def noise(rows: int, seed: int = 3) -> RowNoise:
    return RowNoise(BatchKey(seed, 0, rows), rows, "test")


@pytest.mark.parametrize("name", MODELS)
def test_fit_test_sample_save_load(name: str, tmp_path: Path) -> None:
    data = Batches([make_batch(6, seed) for seed in range(4)])
    model = MODELS[name]()
    trainer = make_trainer(tmp_path, max_epochs=12)
    trainer.fit(model, data)
    last = trainer.callback_metrics["val/loss"].item()
    fresh = MODELS[name]().build(SPEC)
    first = make_trainer(tmp_path).validate(fresh, data, verbose=False)[0]["val/loss"]
    assert last < 0.95 * first  # it learns
    assert trainer.global_step == 48
    metrics = trainer.test(model, data, verbose=False)[0]
    assert all(math.isfinite(value) for value in metrics.values())
    if isinstance(model, VAE):
        assert {"test/elbo", "test/nll", "test/nll_stderr", "test/kl", "test/reconstruction"} <= set(metrics)
        assert metrics["test/bits_per_dim"] == pytest.approx(metrics["test/nll"] / 30 / math.log(2))
        assert metrics["test/elbo"] == pytest.approx(metrics["test/reconstruction"] - metrics["test/kl"], rel=1e-4)
        if name != "inpainting":  # whose elbo is that of the hidden pixels
            assert metrics["test/nll"] <= -metrics["test/elbo"] + 0.5

    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = type(model).load_from_checkpoint(tmp_path / "model.ckpt", weights_only=False)
    assert loaded.spec == SPEC
    for one in (model, loaded):
        one.train()
    images = [one.sample(5, generator=torch.Generator().manual_seed(0)) for one in (model, loaded)]
    assert images[0].shape == (5, 1, 5, 6)
    assert images[0].dtype == torch.float32
    assert images[0].min() >= 0
    assert images[0].max() <= 1
    assert torch.equal(*images)
    assert not torch.equal(images[0], model.sample(5, generator=torch.Generator().manual_seed(1)))
    assert model.training  # sampling leaves the mode as it was
    assert not images[0].requires_grad
    batch = data.train[0]
    assert model.reconstruct(batch.image, batch.label).shape == batch.image.shape
    assert model.from_latent(torch.randn(3, 4), torch.arange(3)).shape == (3, 1, 5, 6)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_every_parameter(name: str, batch: ImageBatch) -> None:
    model = MODELS[name]().build(SPEC)
    model.kl_warmup = 0
    label = batch.label.clone()
    label[:2] = -1 if name == "m2" else label[:2]
    model.terms(batch.image, label, noise(6))["loss"].mean().backward()
    for parameter_name, parameter in model.networks.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", MODELS)
def test_two_halves_are_the_whole(name: str) -> None:
    """Rows 0-3 and 4-7 of one global batch, as two processes hold them, give the gradient of the whole."""
    whole = make_batch(8)
    if name == "m2":
        whole.label[1::2] = -1
    gradients = []
    for rows in ([slice(0, 8)], [slice(0, 4), slice(4, 8)]):
        model = MODELS[name]().build(SPEC)
        model.kl_warmup = 0
        for part in rows:
            batch = ImageBatch(whole.image[part], whole.label[part], whole.key._replace(start=part.start))
            (model.terms(batch.image, batch.label, model.noise(batch))["loss"].mean() / len(rows)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.networks.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_labels_matter_and_are_checked(batch: ImageBatch) -> None:
    model = MODELS["conditional"]().build(SPEC)
    z = torch.randn(1, 4).expand(3, -1)
    images = model.from_latent(z, torch.arange(3))
    assert not torch.allclose(images[0], images[1])
    with pytest.raises(UsageError, match=r"label = 3; accepted: 0 \.\. 2"):
        model.from_latent(z, torch.tensor([0, 1, 3]))
    with pytest.raises(UsageError, match="label = -1"):
        model.log_prob(batch.image, torch.full((6,), -1))
    with pytest.raises(UsageError, match="needs labels"):
        ConditionalVAE(**SMALL).build(ImageSpec((1, 5, 6), 0, (0.0, 1.0), True))


def test_m2_enumeration_is_the_slow_loop(batch: ImageBatch) -> None:
    model = SemiSupervisedVAE(**SMALL, alpha=3.0).build(SPEC)
    label = torch.tensor([0, -1, 2, -1, -1, 1])
    terms = model.terms(batch.image, label, noise(6))
    epsilon, log_q_y = noise(6).normal(4), model.net("classifier")(batch.image).log_softmax(-1)

    def lower_bound(i: int, y: int) -> torch.Tensor:
        """L(x_i, y), one example and one label at a time."""
        image, one_hot = batch.image[i : i + 1], torch.eye(3)[y : y + 1]
        q = model.encode(image, one_hot)
        logits = model.decode(q.mean + q.std * epsilon[i], one_hot)
        log_likelihood = torch.distributions.Bernoulli(logits=logits).log_prob(image).sum()
        prior = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
        kl = torch.distributions.kl_divergence(torch.distributions.Normal(q.mean[0], q.std[0]), prior).sum()
        return log_likelihood - kl + math.log(1 / 3)

    for i in range(6):
        if label[i] >= 0:
            expected = -lower_bound(i, int(label[i])) - 3.0 * log_q_y[i, label[i]]
        else:
            q_y = log_q_y[i].exp()
            entropy = -(q_y * log_q_y[i]).sum()
            expected = -(sum(q_y[y] * lower_bound(i, y) for y in range(3)) + entropy)
        torch.testing.assert_close(terms["loss"][i], expected)
    measured = model.measure(terms)
    torch.testing.assert_close(measured["elbo"][label < 0], -terms["loss"][label < 0])
    right = log_q_y.argmax(-1)[label >= 0] == label[label >= 0]
    assert torch.equal(measured["accuracy"], right.float())


def test_m2_bound_is_the_marginal_over_labels(batch: ImageBatch) -> None:
    """With ignorant networks (z does not matter) p(x) = 1/K sum_y p(x | y), which the bound then gives exactly."""
    model = SemiSupervisedVAE(**SMALL).build(SPEC)
    with torch.no_grad():
        model.networks["encoder"].layers[-1].weight.zero_()  # q(z | x, y) = N(0, I)
        model.networks["decoder"].layers[0].weight[:, :4].zero_()  # the decoder sees y alone
    with torch.no_grad():
        logits = model.decode(torch.zeros(3, 1, 4), torch.eye(3).unsqueeze(1))  # [K, 1, C, H, W]
        conditional = torch.distributions.Bernoulli(logits=logits).log_prob(batch.image).sum((-3, -2, -1))
    expected = conditional.double().logsumexp(0) - math.log(3)
    torch.testing.assert_close(model.log_prob(batch.image, samples=4), expected, atol=2e-5, rtol=0)


def test_m2_learns_from_few_labels(tmp_path: Path) -> None:
    train = [make_batch(12, seed) for seed in range(8)]
    for i, batch in enumerate(train):
        batch.label[12 if i < 4 else 0 :] = -1
    data = Batches(train, [make_batch(60, 99)])
    model = MODELS["m2"](alpha=20.0)
    trainer = make_trainer(tmp_path, max_epochs=40, enable_checkpointing=False)
    trainer.fit(model, data)
    assert trainer.test(model, data, verbose=False)[0]["test/accuracy"] > 0.9


def test_beta_weighs_the_loss_but_not_the_elbo(batch: ImageBatch) -> None:
    plain, heavy = VAE(**SMALL).build(SPEC), VAE(**SMALL, beta=4.0).build(SPEC)
    one, four = (m.measure(m.terms(batch.image, batch.label, noise(6))) for m in (plain, heavy))
    torch.testing.assert_close(one["elbo"], four["elbo"])
    torch.testing.assert_close(-one["loss"], one["elbo"])
    torch.testing.assert_close(four["loss"] - one["loss"], 3 * one["kl"])


def test_warmup_is_for_training_only(tmp_path: Path) -> None:
    seen = []

    class Spy(VAE):
        def kl_weight(self) -> float:
            seen.append((self.training, super().kl_weight()))
            return seen[-1][1]

    model = Spy(**SMALL, beta=2.0, kl_warmup=4, nll_samples=1)
    trainer = make_trainer(tmp_path, max_epochs=1, enable_checkpointing=False, num_sanity_val_steps=0)
    trainer.fit(model, Batches([make_batch(6, seed) for seed in range(6)]))
    assert [weight for training, weight in seen if training] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert {weight for training, weight in seen if not training} == {2.0}


def test_average_is_used_outside_training(tmp_path: Path) -> None:
    model = MODELS["vae_ema"]()
    trainer = make_trainer(tmp_path, max_epochs=3, enable_checkpointing=False)
    trainer.fit(model, Batches([make_batch()]))
    assert int(model.ema.updates) == 3
    assert model.train().net("encoder") is model.networks["encoder"]
    assert model.eval().net("encoder") is model.ema.average["encoder"]
    assert len(trainer.optimizers[0].param_groups[0]["params"]) == len(list(model.networks.parameters()))


def test_compile_keeps_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    model = VAE(**SMALL, compile=True).build(SPEC)
    assert compiled == list(model.networks.values())
    assert model.state_dict().keys() == VAE(**SMALL).build(SPEC).state_dict().keys()


def test_divergence_stops_before_the_step(tmp_path: Path) -> None:
    bad = make_batch(6, 1)
    bad.image[0, 0, 0, 0] = math.nan
    model = VAE(**SMALL)
    trainer = make_trainer(tmp_path, max_epochs=1, enable_checkpointing=False, num_sanity_val_steps=0)
    with pytest.raises(DivergenceError, match=r"loss = nan.*step 1"):
        trainer.fit(model, Batches([make_batch(), bad]))
    assert all(p.isfinite().all() for p in model.parameters())


def test_codes_have_the_fitted_moments() -> None:
    model = Autoencoder(**SMALL, momentum=0.0).build(SPEC)
    codes = torch.randn(10, 50, 4) @ torch.randn(4, 4) + torch.tensor([1.0, -2.0, 0.0, 3.0])
    for code in codes:
        model.follow(code)
    torch.testing.assert_close(model.code_mean, codes.flatten(0, 1).mean(0), atol=1e-4, rtol=1e-4)
    expected = codes.flatten(0, 1).T.cov(correction=0)
    torch.testing.assert_close(model.code_covariance, expected, atol=0.15, rtol=0.1)
    seen = []
    model.net("decoder").register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model.from_latent(torch.randn(20000, 4))
    torch.testing.assert_close(seen[0].mean(0), model.code_mean, atol=0.1, rtol=0.05)
    torch.testing.assert_close(seen[0].T.cov(), model.code_covariance, atol=0.2, rtol=0.1)


@pytest.mark.parametrize("corruption", ["masking", "salt_and_pepper", "gaussian"])
def test_corruption(corruption: str) -> None:
    model = DenoisingAutoencoder(**SMALL, corruption=corruption, level=0.3).build(SPEC)
    image = torch.full((400, 1, 5, 6), 0.5)
    changed = model.corrupt(image, noise(400))
    assert torch.equal(changed, model.corrupt(image, noise(400)))
    if corruption == "gaussian":
        assert (changed - image).std().item() == pytest.approx(0.3, rel=0.05)
        return
    assert (changed != image).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert changed.unique().tolist() == ([0.0, 0.5] if corruption == "masking" else [0.0, 0.5, 1.0])


def test_random_masks_are_of_three_kinds() -> None:
    masks = random_mask(noise(2000), 9, 7)
    assert masks.shape == (2000, 1, 9, 7)
    full = masks.flatten(1).all(1)
    assert 0.2 < full.float().mean() < 0.32
    partial_masks = masks[~full, 0]
    is_rectangle = torch.stack([m == torch.outer(m.amax(1), m.amax(0)) for m in partial_masks]).flatten(1).all(1)
    assert 0.3 < is_rectangle.float().mean() < 0.75
    assert partial_masks.sum(0).min() > 100  # every pixel is hidden at times


def test_completion_keeps_what_is_visible(batch: ImageBatch) -> None:
    model = MODELS["inpainting"]().build(SPEC)
    mask = torch.zeros(6, 1, 5, 6)
    mask[:, :, 2:] = 1
    filled = model.complete(batch.image, mask, torch.Generator().manual_seed(0))
    visible = mask == 0
    assert torch.equal(filled[visible], batch.image[visible])
    changed = batch.image.clone()
    changed[~visible] = 1 - changed[~visible]
    again = model.complete(changed, mask, torch.Generator().manual_seed(0))
    assert torch.equal(filled, again)  # hidden pixels are not looked at
    with pytest.raises(UsageError, match=r"mask has shape \[5, 6\]"):
        model.complete(batch.image, mask[0, 0])


def test_inpainting_bound_of_an_ignorant_model_is_exact(batch: ImageBatch) -> None:
    """Posterior = prior and a decoder blind to z: log p(x) is the Bernoulli's, whatever k."""
    model = MODELS["inpainting"]().build(SPEC)
    with torch.no_grad():
        for name in ("encoder", "prior"):
            model.networks[name].layers[-1].weight.zero_()
        model.networks["decoder"].layers[0].weight.zero_()
        logits = model.decode(torch.zeros(6, 4), torch.zeros(6, 3))
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(batch.image).sum((-3, -2, -1))
    torch.testing.assert_close(model.log_prob(batch.image, samples=3), expected.double(), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VAE(latent_dim=0), "latent_dim = 0"),
        (lambda: VAE(samples=0), "samples = 0"),
        (lambda: VAE(beta=-1.0), r"beta = -1\.0"),
        (lambda: VAE(kl_warmup=-1), "kl_warmup = -1"),
        (lambda: VAE(nll_samples=0), "nll_samples = 0"),
        (lambda: VAE(ema_decay=1.0), r"ema_decay = 1\.0"),
        (lambda: SemiSupervisedVAE(alpha=-1.0), r"alpha = -1\.0"),
        (lambda: InpaintingVAE(context=0), "context = 0"),
        (lambda: DenoisingAutoencoder(level=1.5), r"level = 1\.5"),
    ],
)
def test_mistakes(make: type[EncoderDecoder], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
