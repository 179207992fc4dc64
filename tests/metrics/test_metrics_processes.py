"""Two processes report what one reports."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from metrics_processes import all_of, in_two_processes, measure_projection, train_and_test

REAL = torch.randint(0, 200, (90, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FAKE = torch.randint(0, 256, (70, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What rank 0 and rank 1 found."""
    folder = tmp_path_factory.mktemp("two")
    return in_two_processes(all_of, folder, str(folder / "cache"), REAL, FAKE)


def test_metrics(ranks: list[dict[str, Any]]) -> None:
    one = measure_projection(REAL, FAKE, 9)
    assert {"fcd_projection", "is_projection", "kid_projection", "recall_projection", "modes"} <= set(one)
    assert ranks[0]["many chunks"] == ranks[1]["many chunks"] == pytest.approx(one, rel=1e-6)


def test_a_process_without_a_sample(ranks: list[dict[str, Any]]) -> None:
    one = measure_projection(REAL[:60], FAKE, 100)
    assert ranks[0]["one chunk"] == ranks[1]["one chunk"] == pytest.approx(one, rel=1e-6)


def test_one_process_writes_the_cache(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["files"] == 2


def test_an_error_of_rank_zero_reaches_all(ranks: list[dict[str, Any]]) -> None:
    assert [rank["error"] for rank in ranks] == ["the value 3 is wrong"] * 2


def test_the_callback_under_ddp(ranks: list[dict[str, Any]]) -> None:
    one = train_and_test("auto", 1)
    assert {"val/fcd_lenet", "val/modes", "test/fcd_lenet", "test/density_lenet"} <= set(one)
    assert ranks[0]["callback"] == ranks[1]["callback"]
    # The model's own parameters agree to float32's rounding only, and the values with them.
    assert ranks[0]["callback"] == pytest.approx(one, rel=1e-4)
