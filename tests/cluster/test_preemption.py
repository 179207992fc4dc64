"""Signals at random moments over two nodes: the run ends as if nothing had happened."""

from __future__ import annotations

import pytest

from tests.cluster.jobs import Cluster
from tests.cluster.preemption import preempt


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_a_signalled_job_comes_back_and_ends_the_same(family: str, cluster: Cluster) -> None:
    sent = preempt(family, cluster, ["USR1", "TERM"], longest=14.0)
    print(*sent, sep="\n")
    assert [entry.signal for entry in sent] == ["USR1", "TERM"]
