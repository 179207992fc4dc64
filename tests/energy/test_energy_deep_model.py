"""The deep energy model as a Lightning module: chains in the checkpoint, samples, completions, averages, stops."""

from functools import partial

import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer

from lit_gen.core.errors import DivergenceError, UsageError
from lit_gen.core.images import ImageBatch, ImageSpec
from lit_gen.core.random import BatchKey, RowNoise, derive_seed
from lit_gen.energy.deep_energy_model import DeepEnergyModel
from lit_gen.energy.energy_networks import ConvEnergy, MLPEnergy
from lit_gen.energy.langevin_training import PersistentLangevin
from lit_gen.energy.score_matching import DenoisingScoreMatching
from tests.energy.deep_energies import GaussianEnergy

SPEC = ImageSpec((1, 6, 5), 0, (-1.0, 1.0))
OBJECTIVES = {
    "langevin": partial(PersistentLangevin, chains=6, replay=2, steps=3),
    "score_matching": partial(DenoisingScoreMatching, levels=4),
}
every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def make(objective="langevin", **options):
    adam = partial(torch.optim.Adam, lr=1e-3)
    network = partial(ConvEnergy, width=4)
    options = {"network": network, "sample_steps": 6, "optimizer": adam, **options}
    return DeepEnergyModel(objective=OBJECTIVES[objective](), **options)


class OneBatch:
    """One batch an epoch, another one at each update; not a list, which Lightning would take for several loaders."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return 1

    def __iter__(self):
        updates = self.data.trainer.global_step if self.data.trainer and self.data.trainer.training else 0
        key = BatchKey(derive_seed(updates), 0, 5)
        yield ImageBatch(RowNoise(key, 5, "images").uniform(*SPEC.shape) * 2 - 1, torch.zeros(5).long(), key)


class Data(LightningDataModule):
    spec = SPEC

    def train_dataloader(self):
        return OneBatch(self)

    val_dataloader = test_dataloader = train_dataloader


def fit(model, epochs, resume=None, **options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {"accelerator": "cpu", "log_every_n_steps": 1, **dict.fromkeys(quiet, False), **options}
    trainer = Trainer(max_epochs=epochs, **options)
    trainer.fit(model, datamodule=Data(), ckpt_path=resume, weights_only=False)
    return trainer


# ---------------------------------------------------------------- chains and checkpoints


@every_objective
def test_an_interrupted_training_is_the_uninterrupted_one_bit_for_bit(objective, tmp_path):
    straight = make(objective, ema_decay=0.9)
    fit(straight, 5)
    first = make(objective, ema_decay=0.9)
    fit(first, 3).save_checkpoint(tmp_path / "a.ckpt")
    second = make(objective, ema_decay=0.9)
    trainer = fit(second, 5, resume=tmp_path / "a.ckpt")
    assert trainer.global_step == 5
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    if objective == "langevin":
        assert torch.equal(straight.chains.whole(), second.chains.whole())
        assert not torch.equal(first.chains.whole(), second.chains.whole())


def test_chains_are_in_the_checkpoint_and_not_in_the_weights(tmp_path):
    model = make()
    fit(model, 2).save_checkpoint(tmp_path / "a.ckpt")
    chains = torch.load(tmp_path / "a.ckpt", weights_only=False)["chains"]
    assert chains.shape == (6, 2, *SPEC.shape)
    assert not any("chains" in name for name in model.state_dict())
    loaded = DeepEnergyModel.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert torch.equal(loaded.chains.whole(), chains)
    with pytest.raises(UsageError, match="chains"):
        DeepEnergyModel.load_from_checkpoint(
            tmp_path / "a.ckpt", weights_only=False, objective=PersistentLangevin(chains=8, replay=2)
        )


@every_objective
def test_evaluation_logs_what_it_says(objective):
    model = make(objective)
    trainer = fit(model, 2)
    trainer.test(model, datamodule=Data(), verbose=False)
    batch = next(iter(OneBatch(Data())))
    noised = batch.image + model.objective.sigma * RowNoise(batch.key, 5, "noised").normal(*SPEC.shape)
    energy = model.energy(noised)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["test/energy"] == pytest.approx(energy.mean().item(), rel=1e-5, abs=1e-5)
    assert 0 < logged["test/score_error"] < 10
    if objective == "langevin":
        chains = model.energy(model.chains.state[:, -1]).mean().item()
        assert logged["test/energy_gap"] == pytest.approx(energy.mean().item() - chains, rel=1e-4, abs=1e-4)
    else:
        assert logged["test/loss"] > 0
    assert model.estimators["test/score_error"]["noise"] == model.objective.sigma


# ---------------------------------------------------------------- images


@every_objective
@pytest.mark.parametrize("denoise_samples", [True, False])
def test_completions_keep_the_known_pixels(objective, denoise_samples):
    model = make(objective, denoise_samples=denoise_samples).build(SPEC)
    image = torch.rand(4, *SPEC.shape) * 2 - 1
    mask = (torch.rand(4, 1, 6, 5) < 0.5).float()
    filled, again, other = (model.complete(image, mask, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    hidden = mask.bool()
    assert torch.equal(filled[~hidden], image[~hidden])
    assert (filled[hidden] != image[hidden]).all()
    assert filled.abs().max() <= 1
    assert torch.equal(filled, again)
    assert not torch.equal(filled, other)
    with pytest.raises(UsageError, match="mask's shape"):
        model.complete(image, mask[:, 0])


@every_objective
def test_completions_follow_the_conditional_density(objective):
    """A Gaussian in two pixels: the mean of one given the other. 4,000 chains: 5 standard errors are below 0.04."""
    spec = ImageSpec((1, 1, 2), 0, (-1.0, 1.0))
    model = make(objective, network=partial(MLPEnergy, hidden=[4]), sample_steps=400, denoise_samples=False).build(spec)
    covariance = 0.04 * torch.tensor([[1.0, 0.9], [0.9, 1.0]]) + model.objective.sigma**2 * torch.eye(2)
    if objective == "langevin":
        model.objective = PersistentLangevin(step_size=0.005, data_noise=1e-6)
        covariance = 0.04 * torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    else:
        model.objective = DenoisingScoreMatching(sigma_min=0.1, sigma_max=None)
    model.network = GaussianEnergy(torch.zeros(2), torch.linalg.inv(covariance), scale=1 / model.objective.nats)
    image = torch.tensor([0.3, 0.0]).view(1, 1, 1, 2).expand(4000, -1, -1, -1)
    mask = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(4000, -1, -1, -1)
    filled = model.complete(image, mask, torch.Generator().manual_seed(0))[:, 0, 0, 1]
    expected = 0.3 * (covariance[0, 1] / covariance[0, 0]).item()
    assert filled.mean().item() == pytest.approx(expected, abs=0.04)


@every_objective
def test_trajectories_are_the_chains_that_end_in_samples(objective):
    model = make(objective, denoise_samples=False).build(SPEC)
    seen = model.trajectory(3, [6, 0, 2, 9], torch.Generator().manual_seed(1))
    assert seen.shape == (4, 3, *SPEC.shape)
    noise = RowNoise.of(torch.Generator().manual_seed(1), 3)
    start = noise.uniform(*SPEC.shape) * 2 - 1
    if objective == "score_matching":  # noise of the largest level on uniform noise
        start = start + 1.0 * noise.normal(*SPEC.shape)
    torch.testing.assert_close(seen[1], start.clamp(-1, 1))
    torch.testing.assert_close(seen[0], model.sample(3, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(seen[3], seen[0])
    with pytest.raises(UsageError, match="steps"):
        model.trajectory(3, [-1])


def test_energies_are_float32_under_autocast():
    model = make().build(SPEC)
    image = torch.rand(4, *SPEC.shape)
    plain = model.energy(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.energy(image), plain)


def test_averaged_weights_evaluate_and_sample():
    model = make(ema_decay=0.5).build(SPEC)
    image = torch.rand(4, *SPEC.shape)
    before = model.energy(image), model.sample(2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(1.0)
    assert torch.equal(model.energy(image), before[0])
    assert torch.equal(model.sample(2, generator=torch.Generator().manual_seed(1)), before[1])
    model.ema.update(model.network)
    assert not torch.equal(model.energy(image), before[0])


# ---------------------------------------------------------------- stability


def test_clipping_limits_the_step():
    model = make(gradient_clip=1e-3, optimizer=partial(torch.optim.SGD, lr=1.0))
    model.build(SPEC)
    before = torch.nn.utils.parameters_to_vector(model.network.parameters()).detach().clone()
    fit(model, 1)
    after = torch.nn.utils.parameters_to_vector(model.network.parameters()).detach()
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


@every_objective
def test_logging_and_validation_leave_the_training_alone(objective):
    weights = []
    for options in ({"log_every_n_steps": 1}, {"log_every_n_steps": 50, "limit_val_batches": 0}):
        model = make(objective, network=partial(ConvEnergy, width=4, spectral_norm=True))
        fit(model, 3, **options)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_divergence_stops_before_the_step():
    model = make().build(SPEC)
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("inf"))
    with pytest.raises(DivergenceError, match="loss"):
        fit(model, 1, num_sanity_val_steps=0)


@pytest.mark.parametrize(
    ("option", "value"), [("sample_steps", 0), ("gradient_clip", 0.0), ("ema_decay", 1.0), ("compile", True)]
)
def test_mistakes_are_named(option, value):
    with pytest.raises(UsageError, match=f"{option} = "):
        make("score_matching", **{option: value})
