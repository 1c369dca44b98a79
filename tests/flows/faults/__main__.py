"""``python -m tests.flows.faults``: see `tests.flows.faults.matrix`."""

from __future__ import annotations

import sys

from tests.flows.faults.matrix import main

if __name__ == "__main__":
    sys.exit(main())
