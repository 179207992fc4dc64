"""``python -m lit_gen`` for a CIFAR-10 that a test has made: its pictures have other checksums than the real ones."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lit_gen.cli.main import main
    from lit_gen.jobs import child

    child.PROGRAM = [sys.executable, __file__]
    if sys.argv[1] == "run":
        import torchvision

        torchvision.datasets.CIFAR10._check_integrity = lambda self: True
        torchvision.datasets.CIFAR10._load_meta = lambda self: None
    sys.exit(main())
