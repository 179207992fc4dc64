"""``make bench``: every benchmark in turn, each in a process of its own.

python -m benchmarks [--root data] [--record]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHMARKS = (
    ["training.py", "vae"],
    ["training.py", "dcgan"],
    ["rbm.py"],
    ["translation.py"],
    ["decoding.py"],
    ["character_model.py"],
    ["ngram.py"],
    ["data_pipeline.py"],
    ["fid.py"],
)


def main() -> int:
    """Runs all; returns the number of those that failed."""
    failed = 0
    for script, *words in BENCHMARKS:
        extra = list(sys.argv[1:])
        if script == "fid.py":  # needs no data
            extra = [word for word in extra if word == "--record"]
        print(f"\n== {' '.join([script, *words])}", flush=True)
        failed += subprocess.run([sys.executable, str(HERE / script), *words, *extra]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
