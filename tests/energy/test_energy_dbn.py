"""The deep belief network as a model: its stages in one run, resumed anywhere, and its images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_gen.core.checkpoint import RunCheckpoint, load_model
from lit_gen.core.errors import DivergenceError, UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.data import Digits
from lit_gen.energy.dbn import DBN
from lit_gen.energy.negative_phase import ContrastiveDivergence, PersistentContrastiveDivergence
from lit_gen.energy.partition import Partition
from lit_gen.energy.staged_training import stage_of
from lit_gen.energy.units import Gaussian
from tests.conftest import differing_weights
from tests.energy.enumerated_machine import ALPHA, SURE, chi_square
from tests.energy.small_belief_network import index, make_network, write_out

SMALL: dict[str, Any] = {
    "hidden": [12, 10],
    "pretrain_epochs": [2, 1],
    "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.5),
    "sample_steps": 5,
    "posterior_steps": 4,
}
UPDATES = 3  # in an epoch


def digits(**options: Any) -> Digits:
    """Three batches an epoch."""
    return Digits(binarize="threshold", batch_size=32, subset_size=96, val_size=200, **options)


class Recorder(Callback):
    """Keeps the weights and what was logged after each update, and may end the run at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.weights, self.logged = stop_at, [], []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.stop_at:
            raise KilledError

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        self.logged.append({name: value.item() for name, value in trainer.logged_metrics.items()})


class KilledError(Exception):
    pass


def trainer_of(folder: Path, *callbacks: Callback, max_epochs: int = -1, save_every: int = 0) -> Trainer:
    return Trainer(
        max_epochs=max_epochs, accelerator="cpu", devices=1, logger=False, default_root_dir=folder, log_every_n_steps=1,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        callbacks=[RunCheckpoint(save_every), *callbacks],
    )  # fmt: skip


def train(folder: Path, **options: Any) -> tuple[DBN, Recorder, Trainer]:
    model, recorder = DBN(**{**SMALL, **options}), Recorder()
    trainer = trainer_of(folder, recorder)
    trainer.fit(model, datamodule=digits())
    return model, recorder, trainer


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parts of the model whose parameters moved."""
    names = differing_weights(before, after)
    return {".".join(name.split(".")[: 3 if name.startswith("network.layers") else 1]) for name in names}


# ---------------------------------------------------------------- stages


def test_stage_follows_from_the_epoch() -> None:
    assert [stage_of(epoch, [2, 1, 3]) for epoch in range(8)] == [0, 0, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("max_epochs", [2, 4, 1000])
def test_another_number_of_epochs_is_refused(max_epochs: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"trainer.max_epochs = {max_epochs}; accepted: 3, the sum of .*\[2, 1\]"):
        trainer_of(tmp_path, max_epochs=max_epochs).fit(DBN(**SMALL), datamodule=digits())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"pretrain_epochs": [3]}, "pretrain_epochs"),
        ({"pretrain_epochs": [3, 0]}, "pretrain_epochs"),
        ({"fine_tune_epochs": 2}, "fine_tune_epochs = 2; accepted: 0"),
        ({"fine_tuning": "backprop"}, "fine_tune_epochs = 0; accepted: 1"),
        ({"fine_tuning": "wake"}, "fine_tuning = wake; accepted: none, up_down, backprop"),
        ({"negative_phase": [ContrastiveDivergence()]}, "negative_phase = a list of 1"),
        ({"rate_factors": [1.0]}, "rate_factors = .*; accepted: null or 2 numbers"),
        ({"hidden": []}, "hidden"),
        ({"bound_samples": 0}, "bound_samples = 0"),
    ],
)
def test_bad_options_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DBN(**{**SMALL, **option})


def test_labels_are_needed_where_they_are_used() -> None:
    for options in ({"labels": True}, {"fine_tuning": "backprop", "fine_tune_epochs": 1}):
        with pytest.raises(UsageError, match="num_classes = 0"):
            DBN(**SMALL, **options).build(ImageSpec((1, 4, 4), 0, (0.0, 1.0)))


def test_each_stage_moves_its_own_parameters_only(tmp_path: Path) -> None:
    _, seen, trainer = train(tmp_path, fine_tuning="up_down", fine_tune_epochs=1, labels=True)
    assert trainer.global_step == 4 * UPDATES
    assert trainer.max_epochs == 4
    states = seen.weights
    assert changed(states[0], states[5]) == {"network.layers.0"}
    assert changed(states[6], states[8]) == {"network.layers.1"}
    assert changed(states[9], states[11]) == {"network.layers.0", "network.layers.1"}
    assert [int(state["network.in_use"]) for state in states] == [1] * 6 + [2] * 6
    assert [bool(state["network.layers.0.untied"]) for state in states] == [False] * 9 + [True] * 3


def test_a_layer_may_begin_as_the_one_below_upside_down(tmp_path: Path) -> None:
    _, seen, _ = train(tmp_path, hidden=[12, 64], initial="transposed", optimizer=partial(torch.optim.SGD, lr=1e-4))
    weight = [seen.weights[6][f"network.layers.{layer}.machine.weight"] for layer in (0, 1)]
    torch.testing.assert_close(weight[1], weight[0].T, atol=1e-3, rtol=0)


def test_one_labelled_layer_is_a_classification_machine(tmp_path: Path) -> None:
    model, _, trainer = train(
        tmp_path, hidden=[12], pretrain_epochs=[1], labels=True, fine_tuning="backprop", fine_tune_epochs=1
    )
    trainer.test(model, datamodule=digits(), verbose=False)
    assert 0 < metrics(trainer)["test/nll_bound"] < 64
    assert model.filters().shape == (12, 1, 8, 8)
    images = model.sample(4, label=torch.arange(4), generator=torch.Generator().manual_seed(0))
    assert images.shape == model.reconstruct(images).shape == (4, 1, 8, 8)
    mask = torch.ones(4, 1, 8, 8)
    assert model.complete(images, mask, torch.Generator().manual_seed(0)).shape == images.shape


def test_grey_pixels_through_gaussian_units(tmp_path: Path) -> None:
    model = DBN(**{**SMALL, "visible": partial(Gaussian, sigma=0.5), "optimizer": partial(torch.optim.SGD, lr=0.01)})
    trainer, data = trainer_of(tmp_path), Digits(batch_size=32, subset_size=96, val_size=200)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    # beside independent normal pixels of the data's own means and the units' deviation
    image = torch.cat([image for image, _ in data.clean_batches("test")]).flatten(1) / 255
    independent = -torch.distributions.Normal(model.network.layers[0].mean, 0.5).log_prob(image).sum(-1).mean()
    assert metrics(trainer)["test/nll_bound"] == pytest.approx(independent.item(), abs=3.0)
    images = model.sample(5, generator=torch.Generator().manual_seed(0))
    assert images.shape == (5, 1, 8, 8)
    assert 0 <= images.min() <= images.max() <= 1


def test_back_propagation_leaves_the_generative_model_alone(tmp_path: Path) -> None:
    _, seen, _ = train(tmp_path, fine_tuning="backprop", fine_tune_epochs=2)
    assert changed(seen.weights[8], seen.weights[9]) == {"classifier", "stages_begun"}
    assert changed(seen.weights[9], seen.weights[14]) == {"classifier"}
    begun = seen.weights[9]["classifier.recognisers.0.weight"]
    trained = seen.weights[8]["network.layers.0.machine.weight"].T
    assert (begun - trained).abs().max() < 0.05 * trained.abs().max(), "one update after it was copied"


@pytest.mark.parametrize(("fine_tuning", "labels"), [("backprop", False), ("backprop", True), ("up_down", True)])
def test_what_each_stage_works_on_falls(fine_tuning: str, labels: bool, tmp_path: Path) -> None:
    _, seen, _ = train(
        tmp_path, hidden=[40, 40], pretrain_epochs=[20, 20], optimizer=partial(torch.optim.SGD, lr=0.3, momentum=0.9),
        fine_tuning=fine_tuning, labels=labels, fine_tune_epochs=20, fine_tune_optimizer=partial(torch.optim.Adam, lr=0.02),
    )  # fmt: skip
    last_key = "reconstruction_error" if fine_tuning == "up_down" else "loss"
    for stage, key in enumerate(["reconstruction_error", "reconstruction_error", last_key]):
        values = [row[f"train/{key}"] for row in seen.logged[60 * stage : 60 * (stage + 1)]]
        first, last = sum(values[:6]) / 6, sum(values[-6:]) / 6
        assert last < first - 0.1 * abs(first), f"stage {stage}: {key} went from {first:.4g} to {last:.4g}"


def test_a_diverging_stage_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="loss"):
        train(tmp_path, optimizer=partial(torch.optim.SGD, lr=1e38))


# ---------------------------------------------------------------- resuming


def staged() -> DBN:
    return DBN(
        **{
            **SMALL,
            "pretrain_epochs": [2, 2],
            "fine_tuning": "up_down",
            "fine_tune_epochs": 2,
            "labels": True,
            "negative_phase": PersistentContrastiveDivergence(k=1, chains=7),
            "scheduler": partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
            "fine_tune_optimizer": partial(torch.optim.Adam, lr=0.01),
            "fine_tune_scheduler": partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
            "weight_decay": 0.01,
            "pass_up": "sample",
            "rate_factors": [1.0, 0.5],
        }
    )


@pytest.mark.parametrize("moments", [[1, 6, 8, 12, 16]], ids=["inside_and_between_stages"])
def test_a_run_broken_off_anywhere_ends_as_if_it_had_not_been(moments: list[int], tmp_path: Path) -> None:
    straight = staged()
    trainer_of(tmp_path / "straight").fit(straight, datamodule=digits())

    folder, checkpoint = tmp_path / "broken", None
    for moment in [*moments, None]:
        model = staged()
        trainer = trainer_of(folder, Recorder(moment and moment + 1), save_every=1)
        if moment is None:
            trainer.fit(model, datamodule=digits(), ckpt_path=checkpoint, weights_only=False)
        else:
            with pytest.raises(KilledError):
                trainer.fit(model, datamodule=digits(), ckpt_path=checkpoint, weights_only=False)
        checkpoint = folder / "checkpoints" / "last.ckpt"
        if moment is not None:  # the callback that ends the run comes before the one that saves
            assert torch.load(checkpoint, weights_only=False)["global_step"] == moment
    assert trainer.global_step == 6 * UPDATES
    assert differing_weights(straight.state_dict(), model.state_dict()) == []
    for mine, theirs in zip(straight.negative_phases, model.negative_phases):
        assert torch.equal(mine.chains.whole(), theirs.chains.whole())
    files = [tmp_path / run / "checkpoints" / "last.ckpt" for run in ("straight", "broken")]
    expected, found = (torch.load(file, weights_only=False) for file in files)
    rates = [state["param_groups"][0]["lr"] for state in expected["optimizer_states"]]
    assert rates == pytest.approx([0.1 / 4, 0.05 / 4, 0.01 / 4])
    assert [state["last_epoch"] for state in expected["lr_schedulers"]] == [2, 2, 2]
    for key in ("optimizer_states", "lr_schedulers"):
        assert repr(expected[key]) == repr(found[key])


# ---------------------------------------------------------------- images


def tiny(hidden: list[int], classes: int = 0, **options: Any) -> DBN:
    """A model of 2 x 2 pixels, all layers trained, whose network is a small one with random parameters."""
    network = make_network(4, hidden, classes)
    model = DBN(
        hidden=hidden, pretrain_epochs=[1] * len(hidden), labels=bool(classes), pixels="sample", **options
    ).build(ImageSpec((1, 2, 2), classes, (0.0, 1.0), binary=True))
    model.network.load_state_dict(network.state_dict())
    return model.double()


@pytest.mark.parametrize("label", [None, 1])
def test_samples_have_the_distribution_of_the_network(label: int | None) -> None:
    model = tiny([3, 4], classes=0 if label is None else 3, sample_steps=60)
    n, exact = 6000, write_out(model.network)
    given = None if label is None else torch.full((n,), label)
    images = model.sample(n, label=given, generator=torch.Generator().manual_seed(5))
    if label is None:
        p = exact.log_prob().exp()
    else:
        prior = exact.labelled[:, label]
        p = (prior.unsqueeze(-1) + exact.down[0]).logsumexp(0).softmax(0)
    counts = index(images.flatten(1)).bincount(minlength=16).double()
    assert chi_square(counts, p) > ALPHA
    assert chi_square(counts, torch.full((16,), 1 / 16).double()) < SURE


def test_completion_is_exact_with_one_layer() -> None:
    model, n = tiny([3], posterior_steps=60), 4000
    exact = write_out(model.network)
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double().expand(n, 1, 2, 2)
    mask = torch.tensor([[0, 1], [1, 0]]).expand(n, 1, 2, 2)
    completed = model.complete(image, mask, generator=torch.Generator().manual_seed(1)).flatten(1)
    assert torch.equal(completed[:, [0, 3]], image.flatten(1)[:, [0, 3]])
    compatible = (exact.states[0][:, [0, 3]] == 1).all(-1)
    p = torch.where(compatible, exact.log_prob().exp(), 0.0)
    counts = index(completed).bincount(minlength=16).double()
    assert chi_square(counts[compatible], (p / p.sum())[compatible]) > ALPHA


def test_deep_completion_keeps_what_is_known() -> None:
    model = tiny([3, 4], classes=3, posterior_steps=6)
    image, mask = (torch.rand(5, 1, 2, 2) < 0.5).double(), torch.tensor([[0, 1], [0, 1]]).expand(5, 1, 2, 2)
    completed = model.complete(image, mask, generator=torch.Generator().manual_seed(1))
    assert torch.equal(completed[..., 0], image[..., 0])
    assert set(completed.unique().tolist()) <= {0.0, 1.0}


def test_reconstruction_and_filters_are_those_of_the_equations() -> None:
    model = tiny([3, 4], classes=3)
    bottom, top = (layer.machine for layer in model.network.layers)
    image = (torch.rand(6, 1, 2, 2) < 0.5).double()
    x = torch.sigmoid(image.flatten(1) @ bottom.weight + bottom.hidden.bias)
    exact = write_out(model.network)
    assert exact.labelled.shape == (8, 3)
    label = torch.stack([-top.free_energy(torch.cat([x, F.one_hot(torch.full((6,), k), 3)], -1)) for k in range(3)], -1)
    h = torch.sigmoid(torch.cat([x, label.softmax(-1)], -1) @ top.weight + top.hidden.bias)
    x = torch.sigmoid(h @ top.weight[:3].T + top.visible.parts[0].bias)
    expected = torch.sigmoid(x @ bottom.weight.T + bottom.visible.bias)
    torch.testing.assert_close(model.reconstruct(image).flatten(1), expected.detach())
    torch.testing.assert_close(model.filters().flatten(1), bottom.weight.T.detach())
    torch.testing.assert_close(model.filters(1).flatten(1), (bottom.weight @ top.weight[:3]).T.detach())
    with pytest.raises(UsageError, match="layer = 2; accepted: 0 to 1"):
        model.filters(2)


def test_chains_are_seen_at_the_steps_asked_for() -> None:
    model = tiny([3, 4])
    frames = model.trajectory(9, [1, 3, 7], torch.Generator().manual_seed(2))
    assert frames.shape == (3, 9, 1, 2, 2)
    torch.testing.assert_close(model.trajectory(9, [1], torch.Generator().manual_seed(2))[0], frames[0])


# ---------------------------------------------------------------- test


def metrics(trainer: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("fine_tuning", ["none", "backprop"])
def test_the_test_says_bound_and_errors(fine_tuning: str, tmp_path: Path) -> None:
    epochs = 0 if fine_tuning == "none" else 2
    adam = partial(torch.optim.Adam, lr=0.03)
    model, _, trainer = train(
        tmp_path, labels=True, bound_samples=2, fine_tuning=fine_tuning, fine_tune_epochs=epochs, pretrain_epochs=[6, 6],
        optimizer=adam, fine_tune_optimizer=adam,
    )  # fmt: skip
    trainer.test(model, datamodule=digits(), verbose=False)
    found = metrics(trainer)
    assert 0 < found["test/nll_bound"] < 64
    assert found["test/nll_bound_stderr"] > 0
    assert model.estimators["test/nll_bound"]["method"] == "enumeration"
    image, label = map(torch.cat, zip(*digits().clean_batches("test")))
    image = (image >= 128).float()
    x = model.network.recognise(image.flatten(1))[-1]
    label_free_energy = [
        model.network.top.free_energy(model.network.join(x, torch.full_like(label, k))) for k in range(10)
    ]
    generative = torch.stack(label_free_energy).argmin(0) != label
    tuned = model.classify(image).argmax(-1) != label if epochs else generative
    assert found["test/error_generative"] == pytest.approx(generative.float().mean().item(), abs=1e-6)
    assert found["test/error"] == pytest.approx(tuned.float().mean().item(), abs=1e-6)
    assert torch.equal(tuned, generative) is (fine_tuning == "none")
    loaded = load_model(tmp_path / "checkpoints" / "last.ckpt")
    again = trainer_of(tmp_path / "again")
    again.test(loaded, datamodule=digits(), verbose=False)
    assert metrics(again) == pytest.approx({k: v for k, v in found.items() if k.startswith("test/")})


def test_annealed_bound_is_near_the_exact_one(tmp_path: Path) -> None:
    model, _, trainer = train(tmp_path)
    bounds = {}
    for method in ("exact", "ais"):
        model.partition = Partition(method=method, steps=300, chains=50, burn_in=100)
        trainer.test(model, datamodule=digits(), verbose=False)
        bounds |= {f"{method}_{name}": value for name, value in metrics(trainer).items() if "nll_bound" in name}
    assert bounds["ais_test/nll_bound"] == pytest.approx(bounds["exact_test/nll_bound"], abs=0.2)
    assert bounds["ais_test/nll_bound_reverse"] == pytest.approx(bounds["exact_test/nll_bound"], abs=0.2)
