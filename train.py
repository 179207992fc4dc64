"""``python train.py run --config ...``: the command line as a file, for launchers that take one (``fabric run train.py``)."""

import sys

from lit_gen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
