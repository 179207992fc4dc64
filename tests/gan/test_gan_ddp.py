"""Two processes with batch B compute what one process computes with batch 2B (no batch norm), uneven last batch included."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from lit_gen.data import Digits
from lit_gen.gan import GAN, DCGANDiscriminator, DCGANGenerator, GradientPenalty, Wasserstein


class Save(pl.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_end(self, trainer, model):
        if trainer.is_global_zero:
            values = {"steps": trainer.global_step, **{k: v.item() for k, v in trainer.callback_metrics.items()}}
            torch.save((model.state_dict(), values), self.path)


def train(path, devices, batch_size, **options):
    pl.seed_everything(7)
    sgd = partial(torch.optim.SGD, lr=0.05)  # a wrong factor would show; Adam hides it
    adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.9))
    model = GAN(
        generator=partial(DCGANGenerator, width=4, normalisation="layer"),
        discriminator=partial(DCGANDiscriminator, width=4, normalisation="layer"),
        objective=Wasserstein(),
        penalties=[GradientPenalty()],
        optimizer_g=adam,
        optimizer_d=sgd,
        latent_dim=6,
        ema_decay=0.9,
        **options,
    )
    data = Digits(image_size=16, value_range="symmetric", subset_size=22, batch_size=batch_size, eval_batch_size=64)
    gloo = DDPStrategy(find_unused_parameters=True, start_method="spawn", process_group_backend="gloo")
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=gloo if devices > 1 else "auto",
        use_distributed_sampler=False,
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[Save(path)],
    )
    trainer.fit(model, datamodule=data)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 3),
        ({"discriminator_steps": 2, "accumulate": 2}, 1),
    ],  # rows 8, 8 and 6; the latter as updates of 8 + 8 and 6
    ids=["one-batch", "steps-and-accumulation"],
)
def test_two_processes_equal_one_with_the_doubled_batch(options, steps, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    one, logged_one = train(tmp_path / "one.pt", 1, 8, **options)
    two, logged_two = train(tmp_path / "two.pt", 2, 4, **options)
    assert logged_one["steps"] == logged_two["steps"] == steps
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for name in ("val/loss_d", "val/d_real", "val/d_fake"):
        assert logged_two[name] == pytest.approx(logged_one[name], abs=1e-5)
    pl.seed_everything(7)
