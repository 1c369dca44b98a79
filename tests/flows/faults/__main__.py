"""``python -m tests.flows.faults``: see `tests.flows.faults.matrix`."""

from __future__ import annotations

import signal
import sys

from tests.flows.faults.matrix import main

if __name__ == "__main__":
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # so that servers, workers and disks are taken down, also behind `nohup`
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
