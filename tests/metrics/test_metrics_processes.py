"""Two processes report what one reports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from metrics_processes import failing, in_two_processes, measure_projection, train_and_test

from lit_gen.metrics import cache


@pytest.mark.parametrize("chunk_size", [9, 100])  # with 100 the second process has no sample at all
def test_metrics(chunk_size: int, tmp_path: Path) -> None:
    real = torch.randint(0, 200, (90, 1, 4, 4), dtype=torch.uint8)
    fake = torch.randint(0, 256, (70, 1, 4, 4), dtype=torch.uint8)
    one = measure_projection(real, fake, chunk_size)
    cached = cache.cache_dir()
    for path in cached.iterdir():
        path.unlink()
    first, second = in_two_processes(measure_projection, tmp_path / "two", real, fake, chunk_size)
    assert first == second
    assert first == pytest.approx(one, rel=1e-6)
    assert len(list(cached.iterdir())) == 1
    assert {"fcd_projection", "is_projection", "kid_projection", "recall_projection", "modes"} <= set(one)


def test_an_error_of_rank_zero_reaches_all(tmp_path: Path) -> None:
    assert in_two_processes(failing, tmp_path / "two") == ["the value 3 is wrong"] * 2


def test_the_callback_under_ddp(tmp_path: Path) -> None:
    one = train_and_test(str(tmp_path / "one"), "auto", 1)
    two = train_and_test(str(tmp_path / "two"), "ddp_spawn", 2)
    assert {"val/fcd_lenet", "val/modes", "test/fcd_lenet", "test/density_lenet"} <= set(one)
    assert two == pytest.approx(one, rel=1e-4)
