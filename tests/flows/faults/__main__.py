"""``python -m tests.flows.faults``: see `tests.flows.faults.matrix`."""

from __future__ import annotations

import signal
import sys

from tests.flows.faults.matrix import main

if __name__ == "__main__":
    # So that servers, workers and disks are taken down, also behind `nohup`.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
