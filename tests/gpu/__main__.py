"""``python -m tests.gpu``: see `tests.gpu.check`."""

from __future__ import annotations

import sys

from tests.gpu.check import main

if __name__ == "__main__":
    sys.exit(main())
