"""A stand-in for ``python -m lit_gen`` in tests: the real ``sweep`` and ``reproduce``, and a ``run`` that takes no time.

The run logs one value of ``val/loss`` a step, notes each process that worked on it in ``starts.txt``, keeps the step that it
has reached in ``checkpoints/last``, saves and leaves with 143 on SIGTERM, and says in ``result.json`` what it ended with.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

PROVENANCE = {
    "data_hash": "0123456789abcdef", "estimators": {}, "steps": 5, "epochs": 1, "parameters": {"total": 7}, "device": "cpu",
    "git": {"commit": "c0ffee" * 6, "dirty": False}, "versions": {"python": "3"}, "threads": 1, "world_size": 1,
    "precision": "32-true", "seconds": {"train": 1.0, "evaluation_in_training": 0.0, "test": 0.5},
}  # fmt: skip
"""What a run record says besides its metrics."""


def run(words: list[str]) -> int:
    if words[0] == "--resume":
        folder = Path(words[1])
        options = yaml.safe_load((folder / "config.yaml").read_text())
    else:
        options = dict(word.removeprefix("--").removeprefix("model.").split("=", 1) for word in words if "=" in word)
        folder = Path(options["runs_dir"]) / options["name"] / os.environ["LIT_GEN_RUN_ID"]
        (folder / "checkpoints").mkdir(parents=True)
        write(folder / "config.yaml", yaml.safe_dump(options))
    with open(folder / "starts.txt", "a") as file:
        file.write(f"{os.getpid()}\n")
    write(folder / "environment.json", json.dumps(dict(os.environ)))
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    checkpoint, metrics = folder / "checkpoints" / "last", folder / "metrics.csv"
    start, x = int(checkpoint.read_text()) if checkpoint.exists() else 0, float(options.get("x", 0))
    rows = list(csv.reader(metrics.open()))[: start + 1] if start else [["step", "val/loss"]]
    write(metrics, "".join(",".join(row) + "\n" for row in rows))
    for step in range(start, int(options.get("steps", 5))):
        if options.get("fail") == "exit 2":
            print("lit-gen: error: model.init_args.x = 7: accepted: less", file=sys.stderr)
            return 2
        if options.get("fail") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if options.get("fail") == "diverge" and step == 2:
            print("lit-gen: error: training diverged: loss = nan", file=sys.stderr)
            return 3
        time.sleep(float(options.get("pause", 0.02)))
        value = "nan" if options.get("fail") == "nan" else x * x + 1 / (step + 1)
        with open(metrics, "a") as file:
            file.write(f"{step},{value}\n")
        write(checkpoint, str(step + 1))
        if stopped:
            return 143
    tested = {"test/loss": x * x} if options.get("fail") != "untested" else {}
    seed = int(options.get("seed_everything", 0))
    write(folder / "examples.json", json.dumps({"test/loss": [x * x + i % 3 + seed for i in range(30)]}))
    if options.get("fail") == "torn result" and len((folder / "starts.txt").read_text().splitlines()) == 1:
        (folder / "result.json").write_text('{"metrics": {"test')
        return 0
    write(folder / "result.json", json.dumps({**PROVENANCE, "metrics": tested, "seed": seed}))
    return 0


def write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def main(args: list[str]) -> int:
    if args[0] == "run":
        return run(args[1:])
    from lit_gen.cli import main as command_line
    from lit_gen.cli import sweep
    from lit_gen.jobs import child

    child.PROGRAM, child.POLL_SECONDS = [sys.executable, __file__], 0.02
    sweep.check_configurations = lambda sweep: None
    return command_line.main(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
