"""The two Hopfield models: what they store, in which parts, what they recall, in one process and in two."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.core.random import BatchKey
from lit_gen.energy.associative_memory import AssociativeMemory, global_rows
from lit_gen.energy.hopfield import hebbian, pseudo_inverse
from lit_gen.energy.hopfield_network import HopfieldNetwork
from lit_gen.energy.modern_hopfield import ModernHopfieldNetwork
from tests.conftest import differing_weights

SPEC = ImageSpec((1, 8, 10), 4, (-1.0, 1.0))
MODELS = [
    (HopfieldNetwork, {}),
    (HopfieldNetwork, {"rule": "pseudo_inverse", "order": "random"}),
    (HopfieldNetwork, {"update": "synchronous"}),
    (ModernHopfieldNetwork, {}),
    (ModernHopfieldNetwork, {"similarity": "dot"}),
]
every_model = pytest.mark.parametrize(("kind", "options"), MODELS)


def images(n: int, seed: int = 0, value_range: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    low, high = value_range
    bits = torch.randint(2, (n, 1, 8, 10), generator=torch.Generator().manual_seed(seed)).float()
    return low + (high - low) * bits


@every_model
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_recalls_what_it_stored(kind: type[AssociativeMemory], options: dict, value_range) -> None:
    model = kind(patterns=4, **options).build(ImageSpec((1, 8, 10), 4, value_range))
    stored = images(4, value_range=value_range)
    assert model.store(stored) == 4
    assert torch.equal(model.filters(), stored)
    flips = torch.rand(stored.shape, generator=torch.Generator().manual_seed(1)) < 0.08
    noisy = torch.where(flips, sum(value_range) - stored, stored)
    assert flips.any()
    torch.testing.assert_close(model.denoise(noisy, 0.08), stored, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.reconstruct(stored), stored, atol=1e-4, rtol=0)
    assert (model.energy(stored) < model.energy(noisy)).all()


@every_model
def test_completes_the_hidden_half_and_returns_the_rest_as_given(kind: type[AssociativeMemory], options: dict) -> None:
    model = kind(patterns=3, **options).build(SPEC)
    stored = images(3)
    model.store(stored)
    mask = torch.zeros(3, 1, 8, 10)
    mask[:, :, 4:] = 1
    garbage = torch.where(mask.bool(), -stored, stored)
    completed = model.complete(garbage, mask)
    torch.testing.assert_close(completed, stored, atol=1e-4, rtol=0)
    grey = torch.where(mask.bool(), 0.0, 0.3 * stored)
    assert torch.equal(model.complete(grey, mask)[:, :, :4], grey[:, :, :4])
    with pytest.raises(UsageError, match="mask"):
        model.complete(stored, mask[:2])


def test_grey_images_are_told_apart_by_distance_not_by_length() -> None:
    bright = torch.ones(1, 1, 8, 10)
    stored = torch.cat([bright, 0.2 * bright, -0.3 * bright])
    euclidean = ModernHopfieldNetwork(patterns=3, beta=10.0).build(SPEC)
    dot = ModernHopfieldNetwork(patterns=3, beta=10.0, similarity="dot").build(SPEC)
    for model in (euclidean, dot):
        model.store(stored)
    torch.testing.assert_close(euclidean.reconstruct(stored), stored, atol=1e-3, rtol=0)
    torch.testing.assert_close(dot.reconstruct(stored)[1], bright[0], atol=1e-3, rtol=0)


@every_model
def test_storing_in_parts_is_storing_at_once(kind: type[AssociativeMemory], options: dict) -> None:
    whole, parts = (kind(patterns=12, **options).build(SPEC) for _ in range(2))
    stored, label = images(20), torch.arange(20) % 4
    assert whole.store(stored, label) == 12
    assert [parts.store(x, y) for x, y in zip(stored.split(8), label.split(8))] == [8, 4, 0]
    assert differing_weights(whole.state_dict(), parts.state_dict()) == []
    if isinstance(whole, HopfieldNetwork):
        patterns = stored[:12].flatten(1)
        rule = pseudo_inverse(patterns) if options.get("rule") else hebbian(patterns, normalise=False)
        torch.testing.assert_close(whole.weight, rule)


def test_balanced_storage_takes_the_first_of_each_class() -> None:
    model = HopfieldNetwork(patterns=8, balanced=True).build(SPEC)
    stored, label = images(12), torch.tensor([0, 0, 0, 3, -1, 1, 2, 2, 1, 2, 3, 3])
    assert model.store(stored[:7], label[:7]) == 5
    assert model.store(stored[7:], label[7:]) == 3
    kept = [0, 1, 3, 5, 6, 7, 8, 10]
    assert torch.equal(model.filters(), stored[kept])
    assert model.stored_label.tolist() == label[kept].tolist()


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (HopfieldNetwork, {"patterns": 0}, "patterns = 0"),
        (HopfieldNetwork, {"rule": "hebb"}, "rule = hebb"),
        (HopfieldNetwork, {"flip": 2}, "flip = 2"),
        (HopfieldNetwork, {"sweeps": 0}, "sweeps = 0"),
        (HopfieldNetwork, {"rule": "pseudo_inverse", "patterns": 80}, "patterns = 80"),
        (HopfieldNetwork, {"balanced": True, "patterns": 10}, "patterns = 10"),
        (ModernHopfieldNetwork, {"beta": 0.0}, "beta = 0.0"),
        (ModernHopfieldNetwork, {"similarity": "l2"}, "similarity = l2"),
        (ModernHopfieldNetwork, {"steps": 0}, "steps = 0"),
    ],
)
def test_bad_hyperparameters_are_named(kind: type[AssociativeMemory], options: dict, named: str) -> None:
    with pytest.raises(UsageError, match=f"^{named}; accepted: "):
        kind(**options).build(SPEC)


def test_measures_count_what_was_recalled() -> None:
    model = HopfieldNetwork(patterns=2, flip=1.0).build(
        SPEC
    )  # every pixel inverted: the inverse is a fixed point as well
    model.store(images(2))
    clean = model.encode(images(2))
    model.measure(clean, torch.rand(clean.shape), torch.Generator())
    found = {name: float(model.means[name].compute()) for name in ("recall_rate", "overlap", "pixel_error")}
    assert found == pytest.approx({"recall_rate": 0, "overlap": -1, "pixel_error": 1})
    assert float(model.means["recall_rate_occluded"].compute()) == 1
    assert float(model.means["pixel_error_occluded"].compute()) == 0


def test_every_process_stores_the_rows_of_all(monkeypatch) -> None:
    shares: list[Tensor] = []  # what each process gives to the sum over processes
    monkeypatch.setattr(dist, "all_reduce", shares.append)
    rows = images(5)
    for start, stop in ((0, 3), (3, 5)):
        global_rows(rows[start:stop], BatchKey(0, start, 5))
    assert torch.equal(torch.stack(shares).sum(0), rows)
    assert torch.equal(global_rows(rows, BatchKey(0, 0, 5)), rows)
    assert len(shares) == 2
