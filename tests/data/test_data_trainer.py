"""The DataModules under Lightning's Trainer: hooks, groups of batches, interrupted and resumed runs."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from lit_gen.core.checkpoint import rewind_fetched_batch
from lit_gen.core.images import ImageBatch
from lit_gen.data import Digits, ImageFolder
from lit_gen.data.base import ImageDataModule


class Recorder(LightningModule):
    """Remembers what it is given; its one weight is there for the optimizer."""

    def __init__(self, batches_per_step: int | None = None) -> None:
        super().__init__()
        self.batches_per_step = batches_per_step
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[tuple]] = {"train": [], "val": [], "test": [], "predict": []}

    def record(self, stage: str, batch: ImageBatch | list[ImageBatch]) -> None:
        if self.trainer.sanity_checking:
            return
        assert isinstance(batch, list) == (stage == "train" and self.batches_per_step is not None)
        for each in batch if isinstance(batch, list) else [batch]:
            assert isinstance(each, ImageBatch)
            assert each.image.dtype == torch.float32
            assert each.image.min() < 0
            self.seen[stage].append((tuple(each.key), each.label.tolist(), each.image.double().sum().item()))

    def training_step(self, batch, batch_idx: int):
        self.record("train", batch)
        return self.weight**2

    def validation_step(self, batch, batch_idx: int):
        self.record("val", batch)

    def test_step(self, batch, batch_idx: int):
        self.record("test", batch)

    def predict_step(self, batch, batch_idx: int):
        self.record("predict", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"default_root_dir": folder, "enable_checkpointing": False, **quiet, **options})


def digits(folder: Path) -> Digits:
    return Digits(subset_size=90, batch_size=16, value_range="symmetric", binarize="dynamic", num_labelled=20, crop=1)


def make_pictures(folder: Path) -> None:
    for i in range(45):
        Image.effect_noise((9, 11), 200).point(lambda x: 0 if x < 128 else 255).save(folder / f"{i}.png")


def pictures(folder: Path) -> ImageFolder:
    return ImageFolder(str(folder), image_size=8, channels=1, value_range="symmetric", batch_size=7, num_workers=2)


@pytest.mark.parametrize("group", [None, 1, 4])
def test_fit_validate_test_and_predict(tmp_path: Path, group: int | None):
    data, model = digits(tmp_path), Recorder(group)
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(model, datamodule=data)
    steps = 6 if group in (None, 1) else 2  # 90 = 5 * 16 + 10
    assert fit.global_step == 2 * steps
    assert [len(model.seen[s]) for s in ("train", "val")] == [12, 2]
    trainer(tmp_path).test(model, datamodule=data, verbose=False)
    trainer(tmp_path).predict(model, datamodule=data)
    assert sum(len(label) for _, label, _ in model.seen["test"]) == data.num_examples("test")
    assert [seen[1] for seen in model.seen["predict"]] == [seen[1] for seen in model.seen["test"]]


class Killed(Exception):
    pass


class SaveThenKill(Callback):
    """Saves a checkpoint around the given step, then ends the run."""

    def __init__(self, path: Path, step: int, moment: str) -> None:
        self.path, self.step, self.moment = path, step, moment

    def on_train_batch_start(self, trainer: Trainer, pl_module: Recorder, batch, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            if self.moment == "before the next batch":
                trainer.save_checkpoint(self.path)
            raise Killed

    def on_train_batch_end(self, trainer: Trainer, pl_module: Recorder, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step == self.step and self.moment == "after the batch":
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Recorder, checkpoint: dict) -> None:
        if self.moment == "before the next batch":
            rewind_fetched_batch(checkpoint["loops"]["fit_loop"])


@pytest.mark.parametrize("length", [{"max_epochs": 4}, {"max_epochs": -1, "max_steps": 11}], ids=["epochs", "steps"])
@pytest.mark.parametrize("moment", ["before the next batch", "after the batch"])
@pytest.mark.parametrize("group", [None, 2])
@pytest.mark.parametrize(("kind", "step"), [(digits, 2), (digits, 6), (digits, 8), (pictures, 9)])
def test_an_interrupted_run_sees_what_the_uninterrupted_one_sees(
    tmp_path: Path, kind, step: int, group: int | None, moment: str, length: dict[str, int]
):
    if kind is pictures:
        make_pictures(tmp_path)
    whole, first, second = Recorder(group), Recorder(group), Recorder(group)
    trainer(tmp_path, **length).fit(whole, datamodule=kind(tmp_path))
    path = tmp_path / "last.ckpt"
    with pytest.raises(Killed):
        trainer(tmp_path, **length, callbacks=SaveThenKill(path, step, moment)).fit(first, datamodule=kind(tmp_path))
    assert first.seen["train"]
    trainer(tmp_path, **length).fit(second, datamodule=kind(tmp_path), ckpt_path=path, weights_only=False)
    assert first.seen["train"] + second.seen["train"] == whole.seen["train"]


@pytest.mark.parametrize("steps", [4, 6, 7])
def test_a_run_of_some_steps_is_continued_for_more_steps(tmp_path: Path, steps: int):
    whole, first, second = Recorder(), Recorder(), Recorder()
    trainer(tmp_path, max_steps=11).fit(whole, datamodule=digits(tmp_path))
    begun = trainer(tmp_path, max_steps=steps)
    begun.fit(first, datamodule=digits(tmp_path))
    begun.save_checkpoint(tmp_path / "last.ckpt")
    more = trainer(tmp_path, max_steps=11)
    more.fit(second, datamodule=digits(tmp_path), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert first.seen["train"] + second.seen["train"] == whole.seen["train"]


def test_overfitting_repeats_the_same_batches(tmp_path: Path):
    data, model = Digits(batch_size=16, value_range="symmetric", val_size=0), Recorder()
    trainer(tmp_path, max_epochs=3, overfit_batches=2).fit(model, datamodule=data)
    labels = [label for _, label, _ in model.seen["train"]]
    assert labels[:2] == labels[2:4] == labels[4:]
    assert labels[0] != labels[1]


def test_limited_epochs_are_not_all_the_same(tmp_path: Path):
    model = Recorder()
    trainer(tmp_path, max_epochs=2, limit_train_batches=2).fit(model, datamodule=digits(tmp_path))
    labels = [label for _, label, _ in model.seen["train"]]
    assert len(labels) == 4
    assert labels[:2] != labels[2:]


def test_bytes_become_floats_on_the_device_where_that_is_no_cpu(tmp_path: Path, monkeypatch):
    """The path of an accelerator, taken on the CPU: raw batches go out, the hook converts them, augmentation included."""
    on_cpu, deferred = Recorder(2), Recorder(2)
    trainer(tmp_path, max_epochs=1).fit(on_cpu, datamodule=digits(tmp_path))
    monkeypatch.setattr(ImageDataModule, "_on_accelerator", lambda self: True)
    data = digits(tmp_path)
    trainer(tmp_path, max_epochs=1).fit(deferred, datamodule=data)
    assert next(iter(data.test_dataloader())).image.dtype == torch.uint8
    assert deferred.seen == on_cpu.seen


class Saver(Recorder):
    """Writes what this process saw to a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_fit_end(self) -> None:
        torch.save(self.seen, self.folder / f"seen{self.global_rank}.pt")


def test_two_processes_see_what_one_process_sees(tmp_path: Path):
    """Real processes: the rows of a doubled batch in training, and evaluation batches dealt out in turn."""

    def data(batch_size: int) -> Digits:
        options = {"value_range": "symmetric", "binarize": "dynamic", "flip": True, "crop": 1}
        return Digits(subset_size=100, batch_size=batch_size, val_size=90, eval_batch_size=50, **options)

    one = Recorder()
    trainer(tmp_path, max_epochs=2).fit(one, datamodule=data(16))
    two = trainer(tmp_path, max_epochs=2, strategy="ddp_spawn", devices=2)
    two.fit(Saver(tmp_path), datamodule=data(8))
    ranks = [torch.load(tmp_path / f"seen{r}.pt") for r in range(2)]
    for whole, first, second in zip(one.seen["train"], ranks[0]["train"], ranks[1]["train"], strict=True):
        assert first[1] + second[1] == whole[1]
        assert first[2] + second[2] == pytest.approx(whole[2])
    for rank in range(2):
        assert ranks[rank]["val"] == one.seen["val"][rank::2] != []
