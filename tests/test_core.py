"""Keyed randomness, averages of weights, checkpoints, metrics.csv, run records."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_gen.core.checkpoint import AtomicCheckpointIO, RunCheckpoint, is_intact, newest_intact
from lit_gen.core.ema import ExponentialMovingAverage
from lit_gen.core.errors import CheckpointError, DivergenceError, UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.core.loggers import MetricsCSV, has_wandb_key
from lit_gen.core.module import GenerativeModule, gradient_norm
from lit_gen.core.random import BatchKey, RowNoise, derive_seed
from lit_gen.core.run_dir import RunDir, experiment_name, git_state, write_result
from tests.conftest import differing_weights

# ---------------------------------------------------------------- randomness


def test_seeds_differ_in_every_part_and_their_order() -> None:
    parts = [(1, 2), (2, 1), (1, 2, 0), ("a", 1), ("b", 1), (1,), (0, 1, 2)]
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) == seeds[0]


@pytest.mark.parametrize("rows", [(4, 4), (3, 2), (1, 6)])
@pytest.mark.parametrize("draw", [lambda n: n.normal(5), lambda n: n.uniform(2, 3), lambda n: n.integers(100, 4)])
def test_the_rows_of_a_batch_get_the_same_noise_on_any_number_of_processes(rows: tuple[int, int], draw) -> None:
    total = sum(rows)
    whole = RowNoise(BatchKey(7, 0, total), total, "x")
    parts = [RowNoise(BatchKey(7, start, total), n, "x") for start, n in ((0, rows[0]), (rows[0], rows[1]))]
    for _ in range(2):
        assert torch.equal(draw(whole), torch.cat([draw(part) for part in parts]))


def test_sources_of_another_name_or_key_are_independent() -> None:
    def first(seed: int, name: str) -> torch.Tensor:
        return RowNoise(BatchKey(seed, 0, 1000), 1000, name).normal(1).flatten()

    a, b, c = first(1, "a"), first(1, "b"), first(2, "a")
    for other in (b, c):
        correlation = torch.corrcoef(torch.stack([a, other]))[0, 1]
        assert abs(correlation) < 0.13  # four standard errors
    assert torch.equal(a, first(1, "a"))


# ---------------------------------------------------------------- average of weights


@pytest.mark.parametrize("warmup", [False, True])
def test_average_of_weights_equals_the_recursion(warmup: bool) -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = ExponentialMovingAverage(network, 0.9, warmup)
    expected = network[0].weight.detach().clone()
    for step in range(20):
        with torch.no_grad():
            network[0].weight.add_(torch.randn(2, 3))
            network[1].running_mean.add_(1.0)
        decay = min(0.9, (1 + step) / (10 + step)) if warmup else 0.9
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
        average.update(network)
    torch.testing.assert_close(average.average[0].weight, expected)
    assert torch.equal(average.average[1].running_mean, network[1].running_mean)
    assert not any(p.requires_grad for p in average.parameters())
    average.train()
    assert not average.average.training


def test_decay_is_checked() -> None:
    with pytest.raises(ValueError, match=r"decay = 1\.0"):
        ExponentialMovingAverage(nn.Linear(1, 1), 1.0)


# ---------------------------------------------------------------- divergence


def test_gradient_norm_and_finiteness() -> None:
    network = nn.Linear(3, 2)
    network(torch.randn(4, 3)).pow(2).sum().backward()
    expected = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in network.parameters()))
    assert float(gradient_norm(list(network.parameters()))) == pytest.approx(expected, rel=1e-6)

    module = GenerativeModule()
    module.watch_loss("loss_d", torch.tensor(1.0))
    module.check_finite(torch.tensor(2.0))
    with pytest.raises(DivergenceError, match=r"loss_d = 1\.0 .* at step 0"):
        module.check_finite(torch.tensor(math.inf))
    module.watch_loss("loss_g", torch.tensor(math.nan))
    with pytest.raises(DivergenceError, match="loss_g = nan"):
        module.check_finite()


def test_the_datas_range_is_checked() -> None:
    class Symmetric(GenerativeModule):
        value_ranges = ((-1.0, 1.0),)

    with pytest.raises(UsageError, match=r"\[-1.0, 1.0\], the data is in \[0.0, 1.0\]"):
        Symmetric().build(ImageSpec((1, 8, 8), 0, (0.0, 1.0)))


# ---------------------------------------------------------------- checkpoints


def test_checkpoints_are_atomic_and_the_one_before_is_kept(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    for step in range(3):
        io.save_checkpoint({"step": step, "weights": torch.randn(1000)}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt")["step"] == 2
    assert torch.load(tmp_path / "previous.ckpt")["step"] == 1
    assert newest_intact(tmp_path) == tmp_path / "last.ckpt"
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("the disk is full")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"disk is full; last\.ckpt before it is intact"):
        io.save_checkpoint({"step": 2, "bad": Unpicklable()}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt")["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_damage_is_seen(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    io = AtomicCheckpointIO()
    for step in range(2):
        io.save_checkpoint({"step": step, "weights": torch.randn(5000)}, tmp_path / "last.ckpt")
    last = tmp_path / "last.ckpt"
    content = bytearray(last.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0xFF
    last.write_bytes({"cut": content[:middle], "flipped": content, "empty": b"", "text": b"hello"}[damage])
    assert not is_intact(last)
    assert newest_intact(tmp_path) == tmp_path / "previous.ckpt"
    assert "torn or corrupt" in capsys.readouterr().err


def test_the_checkpoint_to_test(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no intact checkpoint"):
        RunCheckpoint.to_test(tmp_path)
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert RunCheckpoint.to_test(tmp_path).name == "last.ckpt"
    io.save_checkpoint({"step": 1}, tmp_path / "best.ckpt")
    assert RunCheckpoint.to_test(tmp_path).name == "best.ckpt"


def test_differing_weights_sees_one_bit() -> None:
    a = {"x": torch.ones(3), "y": torch.zeros(2)}
    b = {name: value.clone() for name, value in a.items()}
    assert differing_weights(a, b) == []
    b["x"][1] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert differing_weights(a, b | {"z": torch.ones(1)}) == ["x", "z"]


# ---------------------------------------------------------------- metrics.csv and result.json


def test_metrics_csv_adds_columns_and_is_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsCSV(path)
    log.log_metrics({"a": 1.5}, step=0)
    log.log_metrics({"b": 2.0, "a": 3.0}, step=1)
    log.log_metrics({"c": 4.0}, step=1)
    assert log.rows == 3

    again = MetricsCSV(path)
    assert again.rows == 3
    again.truncate(2)
    again.log_metrics({"a": 9.0, "c": 1.0}, step=2)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["step"], r["a"], r["b"], r["c"]) for r in rows] == [
        ("0", "1.5", "", ""), ("1", "3.0", "2.0", ""), ("2", "9.0", "", "1.0"),
    ]  # fmt: skip


def test_result_json_has_no_nan(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_result(run, {"a": math.nan, "b": [math.inf, 1.0], "c": {"d": 2}})
    assert json.loads(run.result.read_text()) == {"a": None, "b": [None, 1.0], "c": {"d": 2}}


def test_experiment_names() -> None:
    assert experiment_name(None, ["configs/vae/vae_mnist.yaml", "more.yaml"], "x.Y") == "vae_mnist"
    assert experiment_name("mine", ["a.yaml"], "x.Y") == "mine"
    assert experiment_name(None, [], "lit_gen.vae.VAE") == "vae"
    with pytest.raises(UsageError, match="a b"):
        experiment_name("a b", [], "x.Y")


def test_git_state_is_complete_or_absent() -> None:
    state = git_state()
    assert set(state) == {"commit", "dirty"}
    assert (state["commit"] is None) == (state["dirty"] is None)


def test_wandb_key_is_found_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert not has_wandb_key()
    netrc.write_text("machine api.wandb.ai login user password 0123\n")
    netrc.chmod(0o600)
    assert has_wandb_key()
    netrc.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_wandb_key()
