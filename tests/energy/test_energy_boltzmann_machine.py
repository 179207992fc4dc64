"""The general Boltzmann machine as a model: training, chains, checkpoints, images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from small_boltzmann_machine import make_model, number_of, written_out
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import BatchKey, RowNoise, derive_seed
from lit_gen.energy import BoltzmannMachine
from lit_gen.energy import fully_connected_likelihood as likelihood

SPEC = ImageSpec((1, 2, 3), 3, (0.0, 1.0), binary=True)
SMALL = {"hidden_units": 3, "sample_steps": 5, "posterior_steps": 6, "ais_steps": 30, "ais_chains": 20, "n_chains": 9}
MODELS = {
    "exact": partial(BoltzmannMachine, **SMALL, gradient="exact", centred=False),
    "gibbs": partial(BoltzmannMachine, **SMALL, temperature=1.5, scan="shuffled"),
    "mean_field": partial(BoltzmannMachine, **SMALL, positive="mean_field", pixels="sample"),
    "visible_only": partial(BoltzmannMachine, **SMALL | {"hidden_units": 0}),
    "large": partial(BoltzmannMachine, **SMALL | {"hidden_units": 20}),
}
FAST = partial(torch.optim.SGD, lr=0.1, momentum=0.5, weight_decay=0.01)


class Loader:
    """Four batches, under new keys each epoch; not a list, which Lightning would take for several loaders."""

    def __init__(self, images: Tensor, trainer: Trainer) -> None:
        self.images, self.trainer = images, trainer

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[ImageBatch]:
        for i, image in enumerate(self.images.chunk(4)):
            key = BatchKey(derive_seed(self.trainer.current_epoch, i), 0, len(image))
            yield ImageBatch(image, torch.zeros(len(image), dtype=torch.int64), key)


class Stripes(LightningDataModule):
    """Images of 2 x 3 pixels: a column or a row that is on."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SPEC
        kinds = torch.zeros(5, 2, 3)
        for i in range(3):
            kinds[i, :, i] = 1
        for i in range(2):
            kinds[3 + i, i] = 1
        self.images = kinds.repeat(8, 1, 1)[:, None]

    binarize, dequantize, value_range = "threshold", False, "unit"

    def clean_batches(self, split: str, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        yield (self.images * 255).to(torch.uint8), torch.zeros(len(self.images), dtype=torch.int64)

    def train_dataloader(self) -> Loader:
        return Loader(self.images, self.trainer)

    def val_dataloader(self) -> Loader:
        return Loader(self.images, self.trainer)

    def test_dataloader(self) -> Loader:
        return Loader(self.images, self.trainer)


def make_trainer(folder: Path, **options: object) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(accelerator="cpu", default_root_dir=folder, log_every_n_steps=1, **quiet, **options)


@pytest.mark.parametrize("name", MODELS)
def test_learns_tests_samples_saves(name: str, tmp_path: Path) -> None:
    data, model = Stripes(), MODELS[name](optimizer=FAST)
    trainer = make_trainer(tmp_path, max_epochs=40)
    trainer.fit(model, data)
    assert trainer.global_step == 160
    weight = model.machine.weight
    assert torch.equal(weight, weight.t())
    assert not weight.diagonal().any()
    assert weight.abs().max() > 0.3
    metrics = trainer.test(model, data, verbose=False)[0]
    assert all(math.isfinite(value) for value in metrics.values())
    if name == "large":
        # the same quantity two ways: the hidden units of the machine are too many to enumerate all, not alone
        assert metrics["test/log_z_lower"] < metrics["test/log_z"] < metrics["test/log_z_upper"]
        assert metrics["test/nll_bound"] == pytest.approx(metrics["test/free_energy"] + metrics["test/log_z"], abs=1e-3)
    else:
        # uniform images have 6 log 2 = 4.2 nats, five kinds of image log 5 = 1.6
        assert metrics["test/nll"] < (3.4 if name == "visible_only" else 3.0)
        exact = -likelihood.log_likelihood(model.machine, data.images.flatten(1)).mean()
        assert metrics["test/nll"] == pytest.approx(exact.item(), abs=1e-4)
    assert trainer.callback_metrics["test/log_z"] > 0

    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = BoltzmannMachine.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=False)
    images = [one.sample(50, generator=torch.Generator().manual_seed(0)) for one in (model, loaded)]
    assert torch.equal(*images)
    assert images[0].shape == (50, 1, 2, 3)
    assert set(images[0].unique().tolist()) <= {0.0, 1.0} or model.pixels == "mean"
    assert model.reconstruct(data.images[:5]).shape == (5, 1, 2, 3)
    assert model.filters().shape == (model.hidden_units or 6, 1, 2, 3)
    seen = model.trajectory(4, [0, 2, 5], generator=torch.Generator().manual_seed(0))
    assert seen.shape == (3, 4, 1, 2, 3)
    assert torch.equal(seen[2], model.sample(4, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(seen[0], seen[1])


def test_weight_decay_is_for_couplings_alone() -> None:
    model = make_model(optimizer=FAST)
    (couplings, bias) = model.configure_optimizers().param_groups
    assert [couplings["weight_decay"], bias["weight_decay"]] == [0.01, 0.0]
    assert couplings["params"] == [model.machine.couplings]
    assert bias["params"] == [model.machine.centred_bias]


def step(model: BoltzmannMachine, image: Tensor, key: BatchKey) -> Tensor:
    """The loss of one training step, without a Trainer."""
    model._trainer = Trainer(accelerator="cpu", logger=False, log_every_n_steps=10**9)
    return model.training_step(ImageBatch(image.double(), torch.zeros(len(image)), key), 0)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_exact_step_is_the_gradient_of_the_log_likelihood(temperature: float) -> None:
    model = make_model(gradient="exact", temperature=temperature)
    image = (torch.rand(5, 1, 2, 3) < 0.5).double()
    parameters = list(model.machine.parameters())
    mine = torch.autograd.grad(step(model, image, BatchKey(1, 0, 5)), parameters)
    nll = -likelihood.log_likelihood(model.machine, image.flatten(1)).mean()
    for a, b in zip(mine, torch.autograd.grad(nll, parameters)):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_two_processes_are_one(monkeypatch) -> None:
    """Rows and chains divided 2 : 2 and 4 : 3 give the gradient, and move the chains, as in one process."""
    image = (torch.rand(4, 1, 2, 3) < 0.5).double()
    results = []
    for world in (1, 2):
        gradient, chains = 0.0, []
        for rank in range(world):
            for module in ("energy.chains", "energy.boltzmann_machine", "core.sharded"):
                monkeypatch.setattr(f"lit_gen.{module}.world_size", lambda world=world: world)
            monkeypatch.setattr("lit_gen.core.sharded.rank", lambda rank=rank: rank)
            model = make_model(n_chains=7)
            model.on_train_start()
            rows = 4 // world
            part = image[rank * rows : (rank + 1) * rows]
            loss = step(model, part, BatchKey(9, rank * rows, 4))
            gradient = (
                gradient + torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())]) / world
            )
            chains.append(model.chains.state)
        results.append((gradient, torch.cat(chains)))
    assert [len(chain) for chain in chains] == [3, 4]
    torch.testing.assert_close(results[1][0], results[0][0])
    assert torch.equal(results[1][1], results[0][1])
    assert not torch.equal(results[0][1], make_model(n_chains=7).initial_chains())


def test_resumed_training_is_bitwise_the_same(tmp_path: Path) -> None:
    data = Stripes()
    whole = MODELS["gibbs"](optimizer=FAST)
    make_trainer(tmp_path, max_epochs=4).fit(whole, data)
    first = MODELS["gibbs"](optimizer=FAST)
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(first, data)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second = MODELS["gibbs"](optimizer=FAST)
    make_trainer(tmp_path, max_epochs=4).fit(second, data, ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert torch.equal(whole.chains.state, second.chains.state)
    assert not torch.equal(whole.chains.state, first.chains.state)
    for a, b in zip(whole.parameters(), second.parameters()):
        assert torch.equal(a, b)


def test_chains_stay_near_the_model() -> None:
    """Persistent chains that only move have, after many updates' sweeps, the model's moments."""
    model = make_model(n_chains=4000, negative_sweeps=30, scale=0.7)
    model.on_train_start()
    state = model.negative_phase(RowNoise.of(torch.Generator().manual_seed(0), 4000))
    states, p = written_out(model.machine)
    error = (p @ states * (1 - p @ states) / 4000).sqrt()
    assert ((state.mean(0) - p @ states).abs() < 4 * error).all()


def test_completion_clamps_and_has_the_conditional_mean() -> None:
    model = make_model(posterior_steps=4000, scale=1.5)
    states, p = written_out(model.machine)
    image = torch.tensor([[1.0, 0, 1, 0, 1, 1], [0, 0, 1, 1, 0, 0]]).double().view(2, 1, 2, 3)
    mask = torch.tensor([[0, 1, 1, 0, 0, 1], [1, 1, 1, 0, 0, 0]]).view(2, 1, 2, 3)
    filled = model.complete(image, mask, generator=torch.Generator().manual_seed(0))
    known = ~mask.bool()
    assert torch.equal(filled[known], image[known])
    for row in range(2):
        fits = (states[:, :6] == image[row].flatten())[:, known[row].flatten()].all(1)
        mean = (p * fits) @ states[:, :6] / p[fits].sum()
        torch.testing.assert_close(filled[row].flatten(), mean, atol=0.06, rtol=0)
    model.pixels = "sample"
    drawn = model.complete(image, mask, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn[known], image[known])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    with pytest.raises(UsageError, match=r"shape of mask = \[2, 1, 3, 2\]; accepted: \[2, 1, 2, 3\]"):
        model.complete(image, mask.view(2, 1, 3, 2))


def test_denoising_has_the_posterior_mean() -> None:
    model = make_model(posterior_steps=4000, scale=1.5)
    states, p = written_out(model.machine)
    noisy = torch.tensor([[1.0, 0, 1, 0, 1, 1], [0, 0, 1, 1, 0, 0]]).double()
    clean = model.denoise(noisy.view(2, 1, 2, 3), flip=0.2, generator=torch.Generator().manual_seed(0))
    for row in range(2):
        agree = (states[:, :6] == noisy[row]).double()
        posterior = p * (0.8 * agree + 0.2 * (1 - agree)).prod(1)
        mean = posterior @ states[:, :6] / posterior.sum()
        torch.testing.assert_close(clean[row].flatten(), mean, atol=0.06, rtol=0)
    with pytest.raises(UsageError, match=r"flip = 1.0; accepted: 0 < flip < 1"):
        model.denoise(noisy, 1.0)


def test_samples_have_the_model_distribution() -> None:
    model = make_model(hidden_units=0, sample_steps=40, pixels="sample", scale=0.7)
    _, p = written_out(model.machine)
    images = model.sample(20_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(number_of(images.flatten(1)), minlength=64)
    error = (p * (1 - p) / 20_000).sqrt()
    assert ((counts / 20_000 - p).abs() < 4.5 * error).all()


def test_likelihoods_of_small_and_large_machines() -> None:
    model = make_model()
    image = likelihood.all_states(6, model.machine.couplings).view(-1, 1, 2, 3)
    assert model.log_prob(image).exp().sum().item() == pytest.approx(1.0)
    torch.testing.assert_close(-model.free_energy(image) - model.log_partition().value, model.log_prob(image))
    large = make_model(hidden_units=15, ais_steps=400, ais_chains=100, positive_sweeps=30, scale=0.3)
    # 2^6 images, hidden units summed out
    exact = torch.cat([likelihood.hidden_log_weights(large.machine, v).logsumexp(1) for v in image.flatten(1).split(8)])
    log_z = exact.logsumexp(0).item()
    estimate = large.log_partition()
    assert estimate.lower < log_z < estimate.upper
    bound = large.log_prob(image, log_z)
    assert (bound <= exact - log_z).all()
    assert (exact - log_z - bound).max() < 0.5
    assert large.log_partition() == estimate  # the same noise each time


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_units": -1}, "hidden_units = -1; accepted: an integer of 0 or more"),
        ({"gradient": "cd"}, "gradient = cd; accepted: gibbs, exact"),
        ({"positive": "annealed"}, "positive = annealed; accepted: gibbs, mean_field"),
        ({"scan": "random"}, "scan = random; accepted: systematic, shuffled"),
        ({"pixels": "mode"}, "pixels = mode; accepted: mean, sample"),
        ({"temperature": 0.0}, "temperature = 0.0; accepted: temperature > 0"),
        ({"weight_std": -1.0}, "weight_std = -1.0; accepted: weight_std >= 0"),
        ({"ais_chains": 1}, "ais_chains = 1; accepted: an integer of 2 or more"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        BoltzmannMachine(**options)
    assert str(error.value) == message


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="binary pixels"):
        BoltzmannMachine().build(ImageSpec((1, 2, 3), 3, (0.0, 1.0)))
    with pytest.raises(UsageError, match=r"takes images in \[0.0, 1.0\]"):
        BoltzmannMachine().build(ImageSpec((1, 2, 3), 3, (-1.0, 1.0), binary=True))
    with pytest.raises(
        UsageError, match="gradient: exact needs a sum over the states of K = 21 units; accepted: at most 20"
    ):
        BoltzmannMachine(gradient="exact", hidden_units=15).build(SPEC)
    with pytest.raises(UsageError, match=r"chains = 0|n_chains = 0"):
        BoltzmannMachine(n_chains=0)
