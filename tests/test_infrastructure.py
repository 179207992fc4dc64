"""What training offers beside the models: counting of updates, 16-bit floats, early stopping, loggers, memory of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_gen.cli.app import LitGenCLI
from tests.conftest import ROOT, small

WGAN_GP = ROOT / "configs/gan/wgan_gp_mnist.yaml"
VAE = ROOT / "configs/vae/vae_digits.yaml"


def fitted(config: Path, folder: Path, *words: str, **trainer: Any) -> LitGenCLI:
    """A small config, trained with more options."""
    file = folder / config.name
    file.write_text(yaml.safe_dump(small(config, **trainer)))
    cli = LitGenCLI("fit", ["--config", str(file), "--runs_dir", str(folder / "runs"), *words])
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return cli


def test_steps_and_checkpoints_count_generator_updates(tmp_path: Path) -> None:
    cli = fitted(WGAN_GP, tmp_path, "--checkpoint.every_n_steps", "3", max_steps=7, max_epochs=-1, limit_val_batches=1)
    assert cli.trainer.global_step == 7
    assert cli.model.discriminator_updates == 35
    last = torch.load(cli.run_dir.checkpoints / "last.ckpt", weights_only=False)
    before = torch.load(cli.run_dir.checkpoints / "previous.ckpt", weights_only=False)
    assert (before["global_step"], last["global_step"]) == (6, 7)
    steps = [int(row["step"]) for row in cli.csv._read() if row.get("train/loss_g")]
    assert steps == list(range(7))


@pytest.mark.parametrize("config", [WGAN_GP, VAE], ids=["wgan_gp", "vae"])
def test_bfloat16_trains_with_float32_weights(config: Path, tmp_path: Path) -> None:
    cli = fitted(config, tmp_path, max_epochs=1, limit_train_batches=3, limit_val_batches=1, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in cli.model.parameters())
    images = cli.model.sample(3, generator=torch.Generator().manual_seed(0))
    assert images.dtype == torch.float32
    assert torch.isfinite(images).all()


def test_early_stopping_on_a_validation_metric(tmp_path: Path) -> None:
    stop = {
        "class_path": "pytorch_lightning.callbacks.EarlyStopping",
        "init_args": {"monitor": "val/loss", "patience": 1},
    }
    stop["init_args"]["min_delta"] = 1e9  # nothing is ever enough of an improvement
    cli = fitted(VAE, tmp_path, max_epochs=50, limit_train_batches=2, limit_val_batches=1, callbacks=[stop])
    assert cli.trainer.current_epoch < 5


def test_the_best_checkpoint_is_that_of_the_best_validation(tmp_path: Path) -> None:
    cli = fitted(
        VAE, tmp_path, "--checkpoint.monitor", "val/loss", max_epochs=4, limit_train_batches=4, limit_val_batches=2
    )
    values = {int(row["step"]): float(row["val/loss"]) for row in cli.csv._read() if row.get("val/loss")}
    best = torch.load(cli.run_dir.checkpoints / "best.ckpt", weights_only=False)
    assert best["global_step"] == min(values, key=values.get) + 1
    assert cli.checkpoint.best == pytest.approx(min(values.values()))


def test_tensorboard_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    cli = fitted(VAE, tmp_path, "--loggers.tensorboard", "true")
    assert list(cli.run_dir.path.glob("tensorboard/events.out.tfevents.*"))


def test_gradients_accumulate_in_a_vae_as_lightning_does(tmp_path: Path) -> None:
    cli = fitted(VAE, tmp_path, max_epochs=1, limit_train_batches=6, limit_val_batches=0, accumulate_grad_batches=3)
    assert cli.trainer.global_step == 2


def test_throughput_and_evaluation_time_are_kept(tmp_path: Path) -> None:
    cli = fitted(VAE, tmp_path, max_epochs=2, limit_train_batches=5, limit_val_batches=1)
    assert 0 < cli.throughput.evaluation_seconds < cli.throughput.train_seconds
    assert any(float(row["train/images_per_s"]) > 0 for row in cli.csv._read() if row.get("train/images_per_s"))
    saved = torch.load(cli.run_dir.checkpoints / "last.ckpt", weights_only=False)["callbacks"]
    (throughput,) = [state for key, state in saved.items() if key.startswith("Throughput")]
    assert 0 < throughput["train_seconds"] <= cli.throughput.train_seconds * 1.5
