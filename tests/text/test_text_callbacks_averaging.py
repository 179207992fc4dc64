"""The average is the mean of the files, and interruption, several processes and averaging itself change nothing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import seed_everything
from torch import Tensor

from lit_gen.callbacks.checkpoint_averaging import CheckpointAveraging, mean_weights, validate_average
from lit_gen.core.checkpoint import AtomicCheckpointIO, RunCheckpoint, load_model, newest_intact
from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.core.loggers import MetricsCSV
from lit_gen.data import Digits
from tests.metrics.metrics_processes import Noisy, in_two_processes, trainer


class Counting(Noisy):
    """The mean of the images, a sum of batches that it has seen (an integer), and how far validation images are from it."""

    def build_networks(self, spec: ImageSpec) -> None:
        super().build_networks(spec)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen += 1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", (self.mean - batch.image).square().mean(), batch_size=len(batch.image), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 20.0, momentum=0.9)


class Weights(pl.Callback):
    """Writes down the weights after every update."""

    def __init__(self) -> None:
        self.after: dict[int, Tensor] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self.after[trainer.global_step] = pl_module.mean.detach().clone()


class Fails(pl.Callback):
    """A power cut after an update."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyError("power cut")


def fit(folder: Path, averaging: CheckpointAveraging | None, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """Three epochs of four batches, a checkpoint every five updates."""
    seed_everything(1, verbose=False)
    given = [*([averaging] if averaging else []), *callbacks, RunCheckpoint(every_n_steps=5, monitor="val/loss")]
    resume = options.pop("resume", None)
    options = {"max_epochs": 3, "limit_train_batches": 4, "limit_val_batches": 2, **options}
    worker = trainer(
        *given, default_root_dir=str(folder), plugins=[AtomicCheckpointIO()], enable_checkpointing=True, **options
    )
    batch_size = 32 // worker.world_size
    worker.fit(Counting(), datamodule=Digits(batch_size=batch_size, eval_batch_size=64, val_size=200), ckpt_path=resume)
    return worker


def saved(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / name, weights_only=False)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints" / "averaging").glob("*"))


@pytest.mark.parametrize(("every_n_steps", "steps"), [(2, [8, 10, 12]), (None, [4, 8, 12])])
def test_mean_of_the_last_three(every_n_steps: int | None, steps: list[int], tmp_path: Path) -> None:
    weights, averaging = Weights(), CheckpointAveraging(3, every_n_steps)
    fit(tmp_path, averaging, weights)
    expected = torch.stack([weights.after[step] for step in steps]).double().mean(0).float()
    averaged, last = saved(tmp_path, "averaged.ckpt"), saved(tmp_path, "last.ckpt")
    torch.testing.assert_close(averaged["state_dict"]["mean"], expected, rtol=0, atol=0)
    assert averaged["state_dict"]["seen"] == 12  # a counter has no mean
    assert torch.equal(last["state_dict"]["mean"], weights.after[12])
    assert not torch.equal(expected, weights.after[12])
    assert files(tmp_path) == [f"step-{step:08d}.ckpt" for step in steps]
    assert averaging.record["checkpoint_averaging"]["steps"] == steps
    kept = [tmp_path / "checkpoints" / "averaging" / name for name in files(tmp_path)]
    torch.testing.assert_close(mean_weights(kept)["mean"], expected, rtol=0, atol=0)
    assert isinstance(load_model(kept[0]), Counting)


def test_fewer_than_asked_for(tmp_path: Path) -> None:
    averaging = CheckpointAveraging(10)
    fit(tmp_path, averaging)
    assert averaging.steps == [4, 8, 12]


def test_training_does_not_see_the_average(tmp_path: Path) -> None:
    fit(tmp_path / "with", CheckpointAveraging(3))
    fit(tmp_path / "without", None)
    with_it, without = (saved(tmp_path / folder, "last.ckpt") for folder in ("with", "without"))
    assert torch.equal(with_it["state_dict"]["mean"], without["state_dict"]["mean"])
    momenta = [c["optimizer_states"][0]["state"][0]["momentum_buffer"] for c in (with_it, without)]
    assert torch.equal(*momenta)
    assert with_it["callbacks"]["RunCheckpoint"] == without["callbacks"]["RunCheckpoint"]


def test_the_average_is_tested_and_sampled_from(tmp_path: Path) -> None:
    fit(tmp_path, CheckpointAveraging(3))
    checkpoints = tmp_path / "checkpoints"
    assert RunCheckpoint.to_test(checkpoints).name == "averaged.ckpt"
    assert newest_intact(checkpoints).name == "last.ckpt"  # but training goes on from where it was
    (checkpoints / "averaged.ckpt").unlink()
    assert RunCheckpoint.to_test(checkpoints).name == "best.ckpt"


def test_validation_of_the_average(tmp_path: Path) -> None:
    averaging, logger = CheckpointAveraging(3), MetricsCSV(tmp_path / "metrics.csv")
    worker = fit(tmp_path, averaging, logger=logger)
    before = logger.path.read_text().splitlines()
    path = RunCheckpoint.to_test(tmp_path / "checkpoints")
    data = Digits(batch_size=32, eval_batch_size=64, val_size=200)
    values = validate_average(worker, worker.lightning_module, data, path)
    mean = saved(tmp_path, "averaged.ckpt")["state_dict"]["mean"]
    images = torch.cat([batch.image for batch in data.eval_batches("val", 128)])
    assert values == {"val/loss": pytest.approx((mean - images).square().mean().item(), rel=1e-5)}
    with open(logger.path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(before)  # one more, and the header
    assert {name: value for name, value in rows[-1].items() if value} == {
        "step": "12", "averaged/val/loss": str(values["val/loss"]),
    }  # fmt: skip
    assert averaging.record["checkpoint_averaging"]["validation"] == values
    assert worker.loggers == [logger]


@pytest.mark.parametrize("every_n_steps", [3, None])
def test_interrupted_equals_uninterrupted(every_n_steps: int | None, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    fit(straight, CheckpointAveraging(3, every_n_steps))
    with pytest.raises(KeyError, match="power cut"):
        fit(broken, CheckpointAveraging(3, every_n_steps), Fails(9))
    checkpoints = broken / "checkpoints"
    kept = {3: [3, 6, 9], None: [4, 8]}[every_n_steps]
    assert files(broken) == [f"step-{step:08d}.ckpt" for step in kept]
    resume = newest_intact(checkpoints)
    assert saved(broken, "last.ckpt")["global_step"] == 5  # 6, 8 and 9 are trained again
    averaging = CheckpointAveraging(3, every_n_steps)
    fit(broken, averaging, resume=str(resume))
    assert files(broken) == files(straight)
    one, other = (saved(folder, "averaged.ckpt")["state_dict"] for folder in (straight, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_that_goes_on_has_no_average_yet(tmp_path: Path) -> None:
    fit(tmp_path, CheckpointAveraging(3))
    first = saved(tmp_path, "averaged.ckpt")["state_dict"]["mean"]
    with pytest.raises(KeyError, match="power cut"):
        fit(tmp_path, CheckpointAveraging(3), Fails(14), resume=str(tmp_path / "checkpoints/last.ckpt"), max_epochs=4)
    assert RunCheckpoint.to_test(tmp_path / "checkpoints").name == "best.ckpt"
    fit(tmp_path, CheckpointAveraging(3), resume=str(tmp_path / "checkpoints/last.ckpt"), max_epochs=4)
    assert not torch.equal(saved(tmp_path, "averaged.ckpt")["state_dict"]["mean"], first)
    assert files(tmp_path) == [f"step-{step:08d}.ckpt" for step in (8, 12, 16)]


def in_a_process(folder: str) -> dict[str, Any]:
    averaging = CheckpointAveraging(2, every_n_steps=5)
    worker = fit(Path(folder), averaging, strategy="ddp", devices=2)
    return {"steps": averaging.steps, "mean": worker.lightning_module.mean.detach()}


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ranks = in_two_processes(in_a_process, tmp_path / "two", str(tmp_path / "ddp"))
    averaging = CheckpointAveraging(2, every_n_steps=5)
    fit(tmp_path / "one", averaging)
    assert [rank["steps"] for rank in ranks] == [averaging.steps] * 2 == [[5, 10]] * 2
    assert torch.equal(ranks[0]["mean"], ranks[1]["mean"])
    two, one = (saved(tmp_path / folder, "averaged.ckpt")["state_dict"]["mean"] for folder in ("ddp", "one"))
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)


def test_mistakes() -> None:
    with pytest.raises(UsageError, match="last = 0; accepted: 1 or more"):
        CheckpointAveraging(0)
    with pytest.raises(UsageError, match="every_n_steps = 0"):
        CheckpointAveraging(every_n_steps=0)
