"""Text DataModules under Lightning's Trainer: resumed in mid-epoch, in two processes, moved to a device."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from lit_gen.core.errors import UsageError
from lit_gen.core.text import PAD, PairBatch, StreamBatch
from lit_gen.data import NumberText, NumberWords
from lit_gen.data.module import SplitDataModule

SMALL = {"train_size": 150, "val_size": 40, "test_size": 10}
KINDS = ["pairs", "streams", "blocks"]


def make(kind: str, processes: int = 1) -> SplitDataModule:
    """Data whose global batch is the same for one and for two processes."""
    if kind == "pairs":
        return NumberWords(**SMALL, vocab_size=90, batch_tokens=400 // processes, eval_batch_tokens=150)
    options = {"batches_per_epoch": 11} if kind == "blocks" else {}
    return NumberText(**SMALL, mode=kind, block_size=90, batch_size=8 // processes, eval_batch_size=5, **options)


class Recorder(LightningModule):
    """Remembers the batches it is given; its one weight is there for the optimizer."""

    def __init__(self, batches_per_step: int | None = None, folder: Path | None = None) -> None:
        super().__init__()
        self.batches_per_step, self.folder = batches_per_step, folder
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list] = {"train": [], "val": []}

    def training_step(self, batch, batch_idx: int):
        self.seen["train"] += batch if isinstance(batch, list) else [batch]
        return self.weight**2

    def validation_step(self, batch, batch_idx: int):
        if not self.trainer.sanity_checking:
            self.seen["val"].append(batch)

    def on_fit_end(self) -> None:
        if self.folder is not None:
            plain = {stage: [tuple(batch) for batch in batches] for stage, batches in self.seen.items()}
            torch.save(plain, self.folder / f"seen{self.global_rank}.pt")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{"default_root_dir": folder, "enable_checkpointing": False, **quiet, **options})


def assert_equal(a: list, b: list) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert [v.tolist() if isinstance(v, torch.Tensor) else v for v in x] == [
            v.tolist() if isinstance(v, torch.Tensor) else v for v in y
        ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("group", "taken"), [(None, 2), (3, 1), (None, 0)])
def test_a_loader_continues_in_mid_epoch(kind: str, group: int | None, taken: int):
    def loader(epoch: int = 0):
        built = make(kind).train_dataloader()
        built.group, built.epoch = group, epoch
        built.stop = len(built)
        return built

    def flat(items) -> list:
        return [b for item in items for b in (item if isinstance(item, list) else [item])]

    whole = flat(loader(epoch=1))
    first = loader(epoch=1)
    seen = flat(itertools.islice(first, taken))
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    rest = flat(resumed)
    assert_equal(seen + rest, whole)
    assert rest
    following = flat(resumed)
    assert_equal(following, flat(loader(epoch=2)))
    if kind != "streams":
        assert [b[0].tolist() for b in following] != [b[0].tolist() for b in whole]


def test_resume_with_another_budget_is_refused_in_mid_epoch():
    first = make("pairs").train_dataloader()
    next(iter(first))
    with pytest.raises(UsageError, match="mid-epoch"):
        make("pairs", processes=2).train_dataloader().load_state_dict(first.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_under_a_trainer_epochs_have_the_same_number_of_steps(tmp_path: Path, kind: str):
    data, model = make(kind), Recorder(batches_per_step=2)
    fit = trainer(tmp_path, max_epochs=3)
    fit.fit(model, datamodule=data)
    batches = len(data.train_dataloader().plan)
    assert fit.global_step == 3 * -(-batches // 2)
    per_epoch = [sum(b.tokens for b in model.seen["train"][e * batches : (e + 1) * batches]) for e in range(3)]
    assert len(set(per_epoch)) == 1
    assert all(isinstance(b, PairBatch if kind == "pairs" else StreamBatch) for b in model.seen["train"])


def test_two_processes_see_what_one_process_sees(tmp_path: Path):
    """Real processes, whose tokeniser is trained by one of them; running text differs from pairs in its plan alone."""
    one = Recorder()
    trainer(tmp_path, max_epochs=1).fit(one, datamodule=make("pairs"))
    two = trainer(tmp_path, max_epochs=1, strategy="ddp_spawn", devices=2)
    two.fit(Recorder(folder=tmp_path), datamodule=make("pairs", processes=2))
    seen = [torch.load(tmp_path / f"seen{r}.pt", weights_only=False) for r in range(2)]
    for whole, *parts in zip(one.seen["train"], seen[0]["train"], seen[1]["train"], strict=True):
        for i in range(2):  # source and target
            assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])
        assert [part[-1] for part in parts] == [whole.tokens] * 2
    keys = {str(batch[2]) for rank in seen for batch in rank["val"]}
    assert keys == {str(batch.key) for batch in one.seen["val"]}
    assert sum(len(rank["val"]) for rank in seen) == len(one.seen["val"])


def test_tensors_are_moved_and_numbers_stay():
    device = torch.device("meta")
    for kind in ("pairs", "streams"):
        data = make(kind)
        batch = next(iter(data.train_dataloader()))
        (moved,) = data.transfer_batch_to_device([batch], device, 0)
        assert type(moved) is type(batch)
        for name, value in batch._asdict().items():
            if isinstance(value, torch.Tensor):
                assert getattr(moved, name).device == device
                assert getattr(moved, name).shape == value.shape
            else:
                assert getattr(moved, name) == value
        assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
        assert PAD not in batch[1][:, 0]
