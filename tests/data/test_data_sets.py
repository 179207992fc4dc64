"""Splits, options and readers of the data sets."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from jsonargparse import ArgumentError, ArgumentParser

from lit_gen.core.errors import UsageError
from lit_gen.core.images import UNLABELLED, ImageSpec
from lit_gen.data import CIFAR10, CIFAR100, MNIST, Digits, FashionMNIST, ImageDataModule
from lit_gen.data.splits import class_balanced, stratified


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def gather(loader) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(loader)
    return torch.cat([b.image for b in batches]), torch.cat([b.label for b in batches])


def images_of(data, split: str) -> list[bytes]:
    return [image.numpy().tobytes() for images, _ in data.clean_batches(split) for image in images]


# ---------------------------------------------------------------- choices


@pytest.mark.parametrize("n", [0, 1, 7, 50, 99, 100])
def test_stratified_keeps_the_proportions(n: int):
    label = torch.cat([torch.full((c,), k) for k, c in enumerate((50, 30, 15, 5))])
    chosen = stratified(label, n, 0, "x")
    assert len(chosen) == len(chosen.unique()) == n
    counts = torch.bincount(label[chosen], minlength=4)
    assert (counts - n * torch.tensor([0.5, 0.3, 0.15, 0.05])).abs().max() < 1
    assert chosen.tolist() == stratified(label, n, 0, "x").tolist()
    if 1 < n < 100:
        assert chosen.tolist() != stratified(label, n, 1, "x").tolist()


def test_class_balanced():
    label = torch.cat([torch.full((c,), k) for k, c in enumerate((50, 30, 15, 5))])
    chosen = class_balanced(label, 18, 4, 0, "x")
    assert torch.bincount(label[chosen]).tolist() == [5, 5, 4, 4]
    for n in (3, 24):
        with pytest.raises(UsageError, match=f"num_labelled = {n}") as caught:
            class_balanced(label, n, 4, 0, "x")
        one_line(caught)


# ---------------------------------------------------------------- digits


def test_digits_are_scikit_learns_digits():
    from sklearn.datasets import load_digits

    data = Digits()
    assert data.spec == ImageSpec((1, 8, 8), 10, (0.0, 1.0))
    assert [data.num_examples(s) for s in ("train", "val", "test")] == [1200, 200, 397]
    ours = sorted(
        (image.tobytes(), int(label))
        for split in ("train", "val", "test")
        for images, labels in data.clean_batches(split)
        for image, label in zip(images.numpy(), labels)
    )
    raw = load_digits()
    scaled = np.rint(raw.images * 255 / 16).astype(np.uint8)
    assert ours == sorted((image.tobytes(), int(label)) for image, label in zip(scaled, raw.target))


def test_every_split_has_the_classes_in_proportion():
    data = Digits()
    whole = sum(torch.bincount(data.split(s).true_label) for s in ("train", "val", "test"))
    for split in ("train", "val", "test"):
        counts = torch.bincount(data.split(split).true_label)
        assert (counts - whole * counts.sum() / whole.sum()).abs().max() < 2


def test_the_splits_seed_moves_validation_and_nothing_else(monkeypatch):
    a, b = Digits(), Digits(split_seed=1)
    assert images_of(a, "test") == images_of(b, "test")
    assert images_of(a, "val") != images_of(b, "val")
    monkeypatch.setenv("PL_GLOBAL_SEED", "99")
    assert images_of(a, "val") == images_of(Digits(), "val")


def test_an_epoch_of_the_loader_is_the_training_set():
    data = Digits(batch_size=100, value_range="symmetric")
    images, labels = gather(data.train_dataloader())
    clean = torch.cat([x for x, _ in data.clean_batches("train")])
    assert sorted((((images + 1) * 127.5).round().byte()).flatten(1).tolist()) == sorted(clean.flatten(1).tolist())
    assert torch.equal(torch.bincount(labels), torch.bincount(data.split("train").true_label))


def test_evaluation_loaders_give_the_split_in_order():
    data = Digits(eval_batch_size=64, flip=True, crop=2)  # augmentation is for training only
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        images, labels = gather(loader)
        clean, true = (torch.cat(parts) for parts in zip(*data.clean_batches(split)))
        assert torch.equal((images * 255).round().byte(), clean)
        assert torch.equal(labels, true)
    assert Digits(val_size=0).val_dataloader() == []


@pytest.mark.parametrize("mode", ["static", "dynamic", "threshold"])
def test_binarised_batches(mode: str):
    data = Digits(binarize=mode, value_range="symmetric", image_size=12)
    assert data.spec == ImageSpec((1, 12, 12), 10, (-1.0, 1.0), binary=True)
    first, _ = gather(data.test_dataloader())
    again, _ = gather(data.test_dataloader())
    assert set(first.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(first, again)
    clean = torch.cat([x for x, _ in data.clean_batches("test")])
    assert len(clean.unique()) > 10, "clean images must not be binarised"
    loader = data.train_dataloader()
    epochs = [{int(i): x for b in loader for i, x in zip(fingerprints(b, data), b.image)} for _ in range(2)]
    assert len(epochs[0]) == 1200
    same = [torch.equal(epochs[0][i], epochs[1][i]) for i in epochs[0]]
    assert all(same) if mode != "dynamic" else not any(same)


def fingerprints(batch, data) -> torch.Tensor:
    """Which example each row is, from the plan."""
    plan = data.train_dataloader().plan
    for epoch in range(2):
        for index, key in plan.batches(epoch):
            if key == batch.key:
                return index
    raise AssertionError("a batch that was not planned")


def test_static_binarisation_of_an_image_does_not_depend_on_the_split_or_batch():
    def binary(**options) -> dict[bytes, bytes]:
        data = Digits(binarize="static", **options)
        images = next(data.split("train").images.stream([data.split("train").index]))
        return dict(zip(images_of(data, "train"), (x.numpy().tobytes() for x in images)))

    whole, part = binary(), binary(batch_size=7, val_size=100, subset_size=400, labels=[1, 3, 5, 7])
    common = whole.keys() & part.keys()
    assert len(common) > 100
    assert all(whole[k] == part[k] for k in common)
    other = binary(binarize_seed=1)
    assert sum(whole[k] == other[k] for k in whole) < 20


def test_label_subset_is_renumbered_in_its_order():
    data = Digits(labels=[7, 2])
    assert data.num_classes == data.spec.num_classes == 2
    assert data.class_names == ["7", "2"]
    full = Digits(val_size=0)
    sevens = {x for x, label in zip(images_of(full, "train"), full.split("train").true_label.tolist()) if label == 7}
    labels = data.split("train").true_label.tolist()
    mine = [x for x, label in zip(images_of(data, "train"), labels) if label == 0]
    assert set(labels) == {0, 1}
    assert mine
    assert set(mine) <= sevens
    assert set(data.split("test").true_label.tolist()) == {0, 1}


def test_semi_supervised_labels():
    data = Digits(num_labelled=30, batch_size=64)
    _, labels = gather(data.train_dataloader())
    assert torch.bincount(labels[labels != UNLABELLED]).tolist() == [3] * 10
    assert (labels == UNLABELLED).sum() == 1170
    known = data.split("train").label != UNLABELLED
    assert torch.equal(data.split("train").label[known], data.split("train").true_label[known])
    assert (gather(data.val_dataloader())[1] != UNLABELLED).all()
    again = Digits(num_labelled=30).split("train").label
    assert torch.equal(again, data.split("train").label)
    assert not torch.equal(Digits(num_labelled=30, split_seed=5).split("train").label, again)


def test_subset_size_leaves_the_evaluation_alone():
    small, full = Digits(subset_size=100), Digits()
    assert small.num_examples("train") == 100
    assert images_of(small, "val") == images_of(full, "val")
    assert set(images_of(small, "train")) <= set(images_of(full, "train"))


def test_fingerprint_follows_the_clean_images_and_not_the_batches():
    same = [Digits(), Digits(batch_size=3), Digits(binarize="dynamic"), Digits(flip=True, value_range="symmetric")]
    assert len({data.fingerprint for data in same}) == 1
    other = [
        Digits(image_size=16),
        Digits(val_size=10),
        Digits(split_seed=1),
        Digits(labels=[1, 2]),
        Digits(subset_size=9),
        MNIST(),
    ]
    assert len({data.fingerprint for data in [*other, Digits()]}) == len(other) + 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"labels": [0, 10]}, "10 is out of range; accepted: 0 to 9"),
        ({"labels": [-1]}, "-1 is out of range"),
        ({"labels": [1, 1]}, r"labels = \[1, 1\]"),
        ({"labels": []}, r"labels = \[\]"),
        ({"value_range": "byte"}, "value_range = 'byte'; accepted: unit, symmetric"),
        ({"binarize": "always"}, "binarize = 'always'"),
        ({"binarize": "dynamic", "dequantize": True}, "dequantize"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"eval_batch_size": 0}, "eval_batch_size = 0"),
        ({"image_size": 0}, "image_size = 0"),
        ({"crop": -1}, "crop = -1"),
        ({"val_size": -1}, "val_size = -1"),
        ({"subset_size": 0}, "subset_size = 0"),
        ({"val_size": 1400}, "val_size = 1400; accepted: less than the 1400"),
        ({"subset_size": 1201}, "subset_size = 1201; accepted: at most 1200"),
        ({"num_labelled": 5}, "num_labelled = 5"),
        ({"num_labelled": 1300}, "num_labelled = 1300"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict, named: str):
    with pytest.raises(UsageError, match=named) as caught:
        Digits(**options).setup()
    one_line(caught)


def test_unknown_split_is_refused_in_one_line():
    with pytest.raises(UsageError, match="'holdout'; accepted: train, val, test") as caught:
        Digits().num_examples("holdout")
    one_line(caught)


# ---------------------------------------------------------------- torchvision


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_idx_files_are_read_as_torchvision_reads_them(kind: type, real_data: Path):
    data = kind(root=str(real_data), download=False, val_size=1000, eval_batch_size=1000)
    assert [data.num_examples(s) for s in ("train", "val", "test")] == [59_000, 1000, 10_000]
    reference = getattr(torchvision.datasets, kind.__name__)(str(real_data), train=False)
    images, labels = gather(data.test_dataloader())
    assert torch.equal((images[:, 0] * 255).round().byte(), reference.data)
    assert torch.equal(labels, reference.targets)
    assert data.spec.shape == (1, 28, 28)
    assert set(data.split("train").index.tolist()).isdisjoint(data.split("val").index.tolist())


def fake_cifar(folder: Path, files: list[str], key: str, classes: int, n: int = 20) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    all_images, all_labels = [], []
    for file in files:
        images = rng.integers(256, size=(n, 3072), dtype=np.uint8)
        labels = rng.integers(classes, size=n).tolist()
        (folder / file).write_bytes(pickle.dumps({"data": images, key: labels}))
        all_images.append(images)
        all_labels += labels
    return np.concatenate(all_images).reshape(-1, 3, 32, 32), all_labels


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_cifar_pickles_are_read(kind: type, tmp_path: Path, monkeypatch):
    source = getattr(torchvision.datasets, kind.__name__)
    monkeypatch.setattr(source, "_check_integrity", lambda self: True)  # random images have other checksums
    monkeypatch.setattr(source, "_load_meta", lambda self: None)
    folder = tmp_path / source.base_folder
    files = [name for name, _ in source.train_list + source.test_list]
    key, classes = ("labels", 10) if kind is CIFAR10 else ("fine_labels", 100)
    images, labels = fake_cifar(folder, files, key, classes)
    data = kind(root=str(tmp_path), val_size=0)
    data.prepare_data()  # present: nothing is downloaded
    assert data.spec == ImageSpec((3, 32, 32), classes, (0.0, 1.0))
    got = [torch.cat(parts) for parts in zip(*data.clean_batches("train"), *data.clean_batches("test"))]
    assert np.array_equal(got[0].numpy(), images)
    assert got[1].tolist() == labels
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (min(64, len(files) * 20 - 20), 3, 32, 32)


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, CIFAR10, CIFAR100])
def test_missing_data_is_one_line_that_names_root_and_file(kind: type, tmp_path: Path):
    root = str(tmp_path / "nowhere")
    data = kind(root=root, download=False)
    data.prepare_data()  # must not try
    with pytest.raises(UsageError, match="expected") as caught:
        data.setup()
    message = one_line(caught)
    assert root in message
    assert "download: true" in message
    assert not (tmp_path / "nowhere").exists()


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch):
    def fail(self):
        raise RuntimeError("Error downloading x:\nTried a, got:\nno network")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fail)
    with pytest.raises(UsageError, match="download failed: Error downloading x") as caught:
        MNIST(root=str(tmp_path)).prepare_data()
    assert str(tmp_path) in one_line(caught)


def test_corrupt_data_is_one_line(tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"broken")
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"broken")
    with pytest.raises(UsageError, match="cannot read mnist") as caught:
        MNIST(root=str(tmp_path)).setup()
    one_line(caught)


# ---------------------------------------------------------------- command line


@pytest.mark.parametrize("name", ["Digits", "MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "ImageFolder"])
def test_every_option_is_known_to_the_command_line(name: str):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    arguments = {"image_size": 16, "binarize": "dynamic", "val_size": 3, "batch_size": 5}
    if name == "ImageFolder":
        arguments |= {"root": "pictures", "num_classes": 2, "labels": [0, 1]}
    else:
        arguments |= {"labels": [0, 1]}
    config = parser.parse_object({"data": {"class_path": f"lit_gen.data.{name}", "init_args": arguments}})
    data = parser.instantiate(config).data
    assert type(data).__name__ == name
    assert (data.spec.shape[1:], data.spec.num_classes, data.spec.binary) == ((16, 16), 2, True)
    assert (data.val_size, data.batch_size) == (3, 5)
    with pytest.raises(ArgumentError):
        parser.parse_object(
            {"data": {"class_path": f"lit_gen.data.{name}", "init_args": {**arguments, "batchsize": 1}}}
        )
