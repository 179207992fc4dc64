"""The callback: when it measures, what it logs and records, that it disturbs nothing and says what is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from metrics_processes import Noisy, Projection, trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lit_gen.callbacks.sample_quality import SampleQuality
from lit_gen.core.errors import UsageError
from lit_gen.data import Digits
from lit_gen.metrics import Moments, QualityMetrics, RealStatistics, cache


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gen.metrics.classifier.MAX_UPDATES", 60)


def quality(**options: Any) -> SampleQuality:
    return SampleQuality(**{"n_samples": 40, "n_test_samples": 60, "batch_size": 25, **options})


def test_values_are_logged_and_recorded_beside_their_anchors() -> None:
    callback = quality()
    worker, model, data = trainer(callback, limit_train_batches=2), Noisy(), Digits()
    worker.fit(model, datamodule=data)
    logged = worker.callback_metrics
    for name in ("fcd", "is", "kid", "precision", "recall", "density", "coverage"):
        assert float(logged[f"val/{name}_lenet"]) == pytest.approx(
            callback.validation_record[f"val/{name}_lenet"]["value"], rel=1e-6
        )
    assert 1 <= logged["val/modes"] <= 10
    tested = worker.test(model, datamodule=data, verbose=False)[0]
    for name, entry in callback.record.items():
        assert entry["value"] == pytest.approx(tested[name], rel=1e-6)
        assert (entry["split"], entry["extractor"], entry["n_fake"]) == ("test", "lenet", 60)
        assert entry["weights_hash"] == callback.extractor.weights_hash
        assert entry["classifier_accuracy"] == pytest.approx(tested["test/lenet_accuracy"])
        assert all(math.isfinite(value) for value in entry["anchors"].values())
    entry = callback.record["test/fcd_lenet"]
    assert entry["n_real"] == 397
    assert callback.record["test/kid_lenet"]["n_real"] == 60
    assert entry["anchors"]["real"] < min(entry["value"], entry["anchors"]["noise"])
    assert callback.seconds > 0
    assert not any("extractor" in name for name in model.state_dict())


def test_a_second_run_finds_everything_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> dict[str, Any]:
        callback = quality()
        trainer(callback).test(Noisy(), datamodule=Digits(), verbose=False)
        return callback.record

    first, files = test(), {path.name for path in cache.cache_dir().iterdir()}
    assert {name.split("-")[0] for name in files} == {"lenet", "real", "anchors"}
    monkeypatch.setattr("lit_gen.metrics.classifier._train", None)
    monkeypatch.setattr("lit_gen.metrics.real._compute", None)
    monkeypatch.setattr(SampleQuality, "_compute_anchors", None)
    assert test() == first
    assert {path.name for path in cache.cache_dir().iterdir()} == files


class Counting(SampleQuality):
    """Counts evaluations."""

    def __init__(self, **options: Any) -> None:
        super().__init__(n_samples=10, n_test_samples=10, metrics=["modes"], **options)
        self.updates: list[int] = []

    def _evaluate(self, trainer: pl.Trainer, model: pl.LightningModule, stage: str) -> dict:
        self.updates.append(trainer.global_step)
        return super()._evaluate(trainer, model, stage)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every_n_epochs": 2}, [4, 8, 10]),
        ({"every_n_epochs": 0}, []),
        ({"every_n_updates": 3}, [4, 6, 10]),
        ({"every_n_updates": 100}, []),
    ],
)
def test_how_often(options: dict[str, int], expected: list[int]) -> None:
    callback = Counting(**options)
    trainer(callback, limit_train_batches=2, max_epochs=5).fit(Noisy(), datamodule=Digits())
    assert callback.updates == expected


def test_fast_dev_run_measures_nothing() -> None:
    callback = Counting()
    trainer(callback, fast_dev_run=True).fit(Noisy(), datamodule=Digits())
    assert callback.updates == []
    assert not cache.cache_dir().exists()


def test_the_count_of_updates_survives_a_checkpoint() -> None:
    callback, resumed = Counting(every_n_updates=5), Counting(every_n_updates=5)
    callback._last_update = 7
    resumed.load_state_dict(callback.state_dict())
    assert resumed._last_update == 7


class GlobalNoise(Noisy):
    """Uses the global generator in training, as dropout does."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        return None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + torch.rand(()))


def test_training_does_not_notice() -> None:
    def train(*callbacks: pl.Callback) -> Tensor:
        torch.manual_seed(5)
        model = GlobalNoise()
        trainer(*callbacks, limit_train_batches=3, max_epochs=2).fit(model, datamodule=Digits())
        return model.mean.detach()

    assert torch.equal(train(), train(quality()))


def test_samples_do_not_depend_on_what_was_drawn_before() -> None:
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        callback = quality(metrics=["fid", "is"])
        trainer(callback).test(Noisy(), datamodule=Digits(), verbose=False)
        values.append(callback.record)
    assert values[0] == values[1]


def test_a_checkpoint_can_follow_a_value(tmp_path: Path) -> None:
    follower = ModelCheckpoint(tmp_path, monitor="val/fcd_lenet", save_top_k=1)
    worker = trainer(quality(metrics=["fid"]), follower, limit_train_batches=2, max_epochs=3, enable_checkpointing=True)
    worker.fit(Noisy(), datamodule=Digits())
    assert math.isfinite(float(follower.best_model_score))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["fid", "fld"]}, "metric 'fld' with extractor lenet; accepted: fid, is, kid, prdc, modes"),
        ({"metrics": ["modes"], "extractor": "inception"}, "accepted: fid, is, kid, prdc$"),
        ({"extractor": "vgg"}, "extractor = 'vgg'; accepted: lenet, inception"),
        ({"n_samples": 5}, "n_samples = 5; accepted: 10 or more"),
        ({"batch_size": 0}, "batch_size = 0; accepted: 1 or more"),
        ({"every_n_epochs": -1}, "every_n_epochs = -1; accepted: 0 or more"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SampleQuality(**options)


def test_memory_is_bounded() -> None:
    """Without the pairwise metrics nothing in the callback's metrics grows with the number of samples."""

    def size(n: int) -> int:
        moments = Moments(9, torch.zeros(12).double(), torch.eye(12).double())
        real = RealStatistics(moments, torch.ones(5, dtype=torch.int64), torch.zeros(0, 12))
        metrics = QualityMetrics(Projection(16), real, n, ("fid", "is", "modes"))
        states = (metrics.fid, metrics.inception_score, metrics.modes)
        return sum(value.numel() for metric in states for value in metric.metric_state.values())

    assert size(100) == size(100_000)
