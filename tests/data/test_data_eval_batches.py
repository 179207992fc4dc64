"""Any split in evaluation mode: the rows that the loaders give, the training images too, without augmentation."""

from __future__ import annotations

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.core.random import RowNoise
from lit_gen.data import Digits


@pytest.mark.parametrize("limit", [1, 29, 30, 31, 75, None, 1000])
def test_rows_are_those_of_the_evaluation_loader(limit: int | None) -> None:
    data = Digits(binarize="dynamic", eval_batch_size=30)
    whole, cut = list(data.val_dataloader()), list(data.eval_batches("val", limit))
    count = min(limit or 200, 200)
    assert [len(batch.image) for batch in cut[:-1]] == [30] * (len(cut) - 1)
    for what in ("image", "label"):
        joined = [torch.cat([getattr(batch, what) for batch in batches]) for batches in (whole, cut)]
        assert torch.equal(joined[0][:count], joined[1])
    # a model's own noise is the same as well
    for batch, full in zip(cut, whole):
        noise = [RowNoise(each.key, len(each.image), "model").uniform(3) for each in (batch, full)]
        assert torch.equal(noise[0], noise[1][: len(batch.image)])


def test_training_images_come_in_order_unaugmented_and_always_the_same() -> None:
    data = Digits(flip=True, crop=2, subset_size=50, eval_batch_size=20, binarize="none")
    clean = torch.cat([images for images, _ in data.clean_batches("train")])
    batches = list(data.eval_batches("train"))
    assert [len(batch.image) for batch in batches] == [20, 20, 10]
    torch.testing.assert_close(torch.cat([batch.image for batch in batches]), clean / 255)

    data = Digits(binarize="dynamic", subset_size=50)
    (first,), (second,) = data.eval_batches("train"), data.eval_batches("train")
    assert torch.equal(first.image, second.image)


def test_empty_and_unknown_splits() -> None:
    assert list(Digits(val_size=0).eval_batches("val")) == []
    with pytest.raises(UsageError, match="training"):
        list(Digits().eval_batches("training"))
