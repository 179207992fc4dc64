"""Extractors: frozen, outside every state dict, known by the hash of their weights; the domain classifier."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from metrics_processes import Projection, Tensors

from lit_gen.core.errors import UsageError
from lit_gen.data import Digits
from lit_gen.metrics import InceptionExtractor, LeNet, LeNetExtractor, cache, quality
from lit_gen.metrics.classifier import classifier_weights


def test_an_extractor_stays_out_of_its_owner() -> None:
    owner = torch.nn.Sequential(torch.nn.Linear(2, 2), Projection(16))
    assert set(owner.state_dict()) == {"0.weight", "0.bias"}
    assert len(list(owner.parameters())) == 2
    owner.load_state_dict(owner.state_dict())
    owner.train()
    assert not owner[1].training
    assert not owner[1].network.training
    owner.double()
    assert owner[1].network.weight.dtype == torch.float64


def test_weights_hash_depends_on_the_weights_alone() -> None:
    first, second, other = (Projection(16, seed=seed).weights_hash for seed in (0, 0, 1))
    assert first == second != other


def test_only_bytes_are_taken() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Projection(16)(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 48), (1, 9, 31)])
def test_lenet_takes_any_size(shape: tuple[int, int, int]) -> None:
    features, logits = LeNet(shape, 6)(torch.randn(2, *shape))
    assert (features.shape, logits.shape) == ((2, 84), (2, 6))


def test_the_classifier_learns_digits_once_and_disturbs_nothing(capsys: pytest.CaptureFixture) -> None:
    data = Digits()
    data.setup()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    environment = dict(os.environ)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    extractor = LeNetExtractor.for_data(data)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert dict(os.environ) == environment
    assert extractor.accuracy > 0.95
    assert "domain classifier of digits" in capsys.readouterr().out

    images, labels = next(data.clean_batches("test", 397))
    features, logits = extractor(images)
    assert features.shape == (397, 84)
    assert float((logits.argmax(1) == labels).float().mean()) == pytest.approx(extractor.accuracy)

    again = LeNetExtractor.for_data(data)
    assert capsys.readouterr().out == ""
    assert (again.weights_hash, again.accuracy) == (extractor.weights_hash, extractor.accuracy)
    assert torch.equal(again(images)[0], features)


def test_the_classifier_is_trained_again_where_its_file_is_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gen.metrics.classifier.MAX_UPDATES", 5)
    first = classifier_weights(Digits(), 0, "cpu")
    (path,) = cache.cache_dir().iterdir()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.warns(UserWarning, match="corrupted"):
        second = classifier_weights(Digits(), 0, "cpu")
    assert all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])) for name in first)


def test_a_launcher_does_not_reach_the_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested Trainer under torchrun or SLURM would ask for the launcher's number of processes."""
    monkeypatch.setattr("lit_gen.metrics.classifier.MAX_UPDATES", 5)
    launchers = {
        "torchrun": {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "GROUP_RANK": "0",
                     "LOCAL_WORLD_SIZE": "2"},
        "slurm": {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0",
                  "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "4"},
    }  # fmt: skip
    for seed, environment in enumerate(launchers.values()):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            classifier_weights(Digits(), seed, "cpu")
            assert {name: os.environ.get(name) for name in environment} == environment


def test_data_without_labels_is_sent_to_inception() -> None:
    data = Tensors({"train": torch.zeros(4, 1, 8, 8, dtype=torch.uint8)})
    with pytest.raises(UsageError, match=r"tensors has 0 classes.*set extractor: inception"):
        LeNetExtractor.for_data(data)


def test_inception_weights_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"feature_extractor_weights_path = nowhere\.pth: no such file"):
        InceptionExtractor("nowhere.pth")
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(UsageError, match="is not a PyTorch weights file"):
        InceptionExtractor(str(tmp_path / "text.pth"))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="not one of torch-fidelity's Inception weights"):
        InceptionExtractor(str(tmp_path / "other.pth"))

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(UsageError, match=r"could not be downloaded .*no network.*set extractor: lenet") as error:
        InceptionExtractor()
    assert "\n" not in str(error.value)


def test_names() -> None:
    assert [quality.metric_name(name, "lenet") for name in ("fid", "is", "precision", "modes")] == [
        "fcd_lenet", "is_lenet", "precision_lenet", "modes",
    ]  # fmt: skip
    assert [quality.metric_name(name, "inception") for name in ("fid", "is", "kid")] == ["fid", "is", "kid"]
