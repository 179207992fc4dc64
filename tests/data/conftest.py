"""Where the real data is, if it is."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Root of MNIST and Fashion-MNIST in torchvision's layout; skips where it is missing."""
    root = Path(os.environ.get("LIT_GEN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"MNIST is not in {root}; set LIT_GEN_DATA to its root")
    return root
