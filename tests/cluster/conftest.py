"""A cluster for a test, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.jobs import Cluster, why_no_slurm


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """SLURM as seen from the test's folder; skips where there is none, and ends the test's jobs."""
    if why_no_slurm():
        pytest.skip(why_no_slurm())
    found = Cluster.at(tmp_path)
    yield found
    found.cancel()
