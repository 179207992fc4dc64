"""``python -m lit_gen``: the same as ``lit-gen`` and ``python train.py``."""

import sys

from lit_gen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
