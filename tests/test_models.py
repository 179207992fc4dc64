"""Every shipped config, through the real command line's parser, trained, sampled, saved, loaded and overfitted."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import Callback, LightningDataModule

from lit_gen.cli.app import LitGenCLI
from lit_gen.core.checkpoint import load_model
from lit_gen.core.images import ImageSpec
from lit_gen.core.module import GenerativeModule
from lit_gen.core.text import BOS, TextSpec
from tests.conftest import CONFIGS, REAL_DATA, ROOT, differing_weights, small


def name(config: Path) -> str:
    """The test's id."""
    return f"{config.parent.name}/{config.stem}"


def model_class(config: Path) -> type[GenerativeModule]:
    """The class that a config trains."""
    module, _, cls = yaml.safe_load(config.read_text())["model"]["class_path"].rpartition(".")
    return getattr(import_module(module), cls)


every_config = pytest.mark.parametrize("config", CONFIGS, ids=name)


class GradientsSeen(Callback):
    """Collects the names of all parameters that had a gradient after an update."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        self.names |= {name for name, p in pl_module.named_parameters() if p.grad is not None}


def trained(config: Path, folder: Path, **trainer) -> LitGenCLI:
    """The model of a config, made small and trained for two updates."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / config.name
    file.write_text(yaml.safe_dump(small(config, **trainer)))
    cli = LitGenCLI("fit", ["--config", str(file), "--runs_dir", str(folder / "runs")])
    cli.gradients = GradientsSeen()
    cli.trainer.callbacks.append(cli.gradients)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return cli


@every_config
def test_config_is_complete_and_accepted_by_the_parser(config: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--config", str(config), "--loggers.wandb", "false", "--trainer.accelerator", "cpu"]
    if "root" in yaml.safe_load(config.read_text())["data"]["init_args"]:
        words += ["--data.init_args.root", str(REAL_DATA)]
    cli = LitGenCLI("fit", words)
    # an image's spec follows from the options, a vocabulary is read from the data
    if config.parent.name == "text" and "root" in words[-2] and not REAL_DATA.is_dir():
        pytest.skip(f"the vocabulary is in the data, which is not in {REAL_DATA}: set LIT_GEN_DATA to its folder")
    cli.model.build(cli.datamodule.spec)
    written = yaml.safe_load(cli.run_dir.config.read_text())
    assert written["model"]["class_path"] == cli.config.model.class_path
    assert written["seed_everything"] == yaml.safe_load(config.read_text())["seed_everything"]
    assert cli.run_dir.experiment == config.stem


@every_config
def test_trains_samples_and_survives_saving(config: Path, tmp_path: Path) -> None:
    cli = trained(config, tmp_path)
    model, spec = cli.model, cli.datamodule.spec

    without = [name for name, p in model.named_parameters() if p.requires_grad and name not in cli.gradients.names]
    assert without == [], "these parameters never get a gradient"
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert cli.trainer.global_step == 2 * cli.trainer.max_epochs  # one epoch, or one for each stage

    loaded = load_model(cli.run_dir.checkpoints / "last.ckpt")
    assert type(loaded) is type(model)
    assert differing_weights(loaded.state_dict(), model.state_dict()) == []

    if isinstance(spec, TextSpec):
        check_texts(model, loaded, cli.datamodule)
    else:
        check_images(model, loaded, spec)


def check_images(model: GenerativeModule, loaded: GenerativeModule, spec: ImageSpec) -> None:
    """Samples have the shape and range of the data, differ, and are those of the loaded model."""
    images = model.sample(7, generator=torch.Generator().manual_seed(3))
    assert images.shape == (7, *spec.shape)
    assert images.dtype == torch.float32
    assert not images.requires_grad
    low, high = spec.value_range
    assert low <= images.min()
    assert images.max() <= high
    assert images.flatten(1).unique(dim=0).shape[0] > 1, "all samples are the same image"
    again = loaded.sample(7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(again, images)


def check_texts(model: GenerativeModule, loaded: GenerativeModule, data: LightningDataModule) -> None:
    """Samples are words of the vocabulary, differ, and are those of the loaded model."""
    given = {} if model.spec.source is None else {"source": next(data.eval_batches("test", 1)).source[0]}
    texts, again = (each.sample(7, **given, generator=torch.Generator().manual_seed(3)) for each in (model, loaded))
    texts, again = ([list(map(int, row)) for row in rows] for rows in (texts, again))
    assert len(texts) == 7
    assert texts == again
    assert all(0 <= token < model.spec.target.size and token != BOS for row in texts for token in row)
    assert len(set(map(tuple, texts))) > 1, "all samples are the same text"


@every_config
def test_same_seed_gives_the_same_weights_and_another_seed_others(config: Path, tmp_path: Path) -> None:
    first = trained(config, tmp_path / "a")
    second = trained(config, tmp_path / "b")
    assert differing_weights(first.model.state_dict(), second.model.state_dict()) == []

    if model_class(config).__name__ == "NGram":
        return  # counting is not random
    experiment = small(config)
    experiment["seed_everything"] = 77
    file = tmp_path / config.name
    file.write_text(yaml.safe_dump(experiment))
    cli = LitGenCLI("fit", ["--config", str(file), "--runs_dir", str(tmp_path / "c")])
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert differing_weights(first.model.state_dict(), cli.model.state_dict()) != []


@pytest.mark.parametrize("config", [c for c in CONFIGS if model_class(c).falls_in_training], ids=name)
def test_overfits_a_tiny_batch(config: Path, tmp_path: Path) -> None:
    """What should fall on sixteen images does; a discriminator learns them against a fixed generator."""
    # restricted Boltzmann machines begin at weights of 0.01, far from any that matter
    epochs = 250 if model_class(config).__name__ == "RBM" else 60
    experiment = small(config, max_epochs=epochs, overfit_batches=1, limit_val_batches=0)
    init = experiment["model"]["init_args"]
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003, "betas": [0.5, 0.999]}}
    init |= {"scheduler": None} if "scheduler" in init else {}
    if "optimizer_d" in init:
        still = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
        plain = {"discriminator_steps": 1, "constraint": None, "scheduler_d": None, "scheduler_g": None}
        init |= {"optimizer_d": adam, "optimizer_g": still} | {k: v for k, v in plain.items() if k in init}
        key = "train/loss_d"
    else:
        init |= {"optimizer": adam}
        key = None
    file = tmp_path / config.name
    file.write_text(yaml.safe_dump(experiment))
    cli = LitGenCLI(
        "fit", ["--config", str(file), "--runs_dir", str(tmp_path / "runs"), "--sample_grid.every_n_epochs", "0"]
    )
    key = key or cli.model.falls_in_training
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    losses = [float(row[key]) for row in cli.csv._read() if row.get(key)]
    first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
    assert last < first - 0.1 * abs(first), f"{key} went from {first:.4g} to {last:.4g}"


def test_configs_are_where_their_family_is() -> None:
    for config in CONFIGS:
        class_path = yaml.safe_load(config.read_text())["model"]["class_path"]
        assert class_path.startswith(f"lit_gen.{config.parent.name}."), config.relative_to(ROOT)
