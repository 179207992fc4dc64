"""metrics.csv is read while a run writes it."""

from __future__ import annotations

import math
from pathlib import Path

from lit_gen.core.loggers import MetricsCSV
from lit_gen.jobs.metrics_file import MetricsFile


def test_metrics_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    assert file.values("a") == []
    logger = MetricsCSV(path)
    logger.log_metrics({"a": 1.0}, 1)
    assert file.values("a") == [1.0]
    assert file.values("b") == []
    with open(path, "a") as raw:
        raw.write("2,3.1")  # and 3.14 follows
    assert file.values("a") == [1.0]
    with open(path, "a") as raw:
        raw.write("4\n")
    assert file.values("a") == [1.0, 3.14]
    logger.log_metrics({"b": float("nan"), "0": 5.0}, 3)  # columns that come later stand before and after the others
    assert file.values("a") == [1.0, 3.14]
    assert math.isnan(file.values("b")[0])
    assert set(file.columns()) == {"0", "a", "b"}
    logger.truncate(1)
    assert file.values("a") == [1.0]


def test_the_newest_value_of_every_column(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    assert file.last() == {}
    path.write_text("step,b,a\n")
    assert file.last() == {}
    path.unlink()
    logger = MetricsCSV(path)
    logger.log_metrics({"b": 1.0, "a": 2.0}, 1)
    logger.log_metrics({"a": 3.0}, 2)
    assert file.last() == {"step": 2.0, "a": 3.0, "b": 1.0}
    with open(path, "a") as raw:
        raw.write("3,4")  # and 4.5 follows
    assert file.last() == {"step": 2.0, "a": 3.0, "b": 1.0}
    with open(path, "a") as raw:
        raw.write("4.5\n4,what,\n5,inf\n")
    assert file.last() == {"step": 5.0, "a": math.inf, "b": 1.0}
    logger.log_metrics({"c": float("nan"), "b": 7.0}, 6)
    last = file.last()
    assert math.isnan(last.pop("c"))
    assert last == {"step": 6.0, "a": math.inf, "b": 7.0}
    assert list(last) == ["step", "a", "b"]
    logger.truncate(1)
    assert file.last() == {"step": 1.0, "a": 2.0, "b": 1.0}
