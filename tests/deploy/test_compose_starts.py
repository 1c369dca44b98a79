"""All of compose.yaml, started here word by word: health checks pass, and runs end well.

Runs are started by hand and by Prefect.
"""

from __future__ import annotations

import time

import pytest

from tests.deploy.deploy_files import compose, example, load
from tests.deploy.started import SECONDS, catalogue, stack

pytestmark = pytest.mark.slow

WAREHOUSE = "s3://pairx/warehouse"
PLANNED = """
import json, os, urllib.request as u
ask = u.Request(os.environ["PREFECT_API_URL"] + "/flow_runs/count", b"{}", {"content-type": "application/json"})
raise SystemExit(json.load(u.urlopen(ask, timeout=30)) == 0)
"""
"""Fails until Prefect has planned the first nights."""
STAYING = ("database", "store", "prefect", "scheduler", "worker")


def described(tmp_path):
    return compose(example("compose.env.example") | {"PAIRX_DATA": str(catalogue(tmp_path / "data"))})


def test_services_are_well_and_a_run_ends_well(tmp_path):
    whole = described(tmp_path)
    with stack(tmp_path, list(whole["services"])) as services:
        for name in STAYING:
            running = services.start_service(name, whole)
        for name in ("bucket", "run"):
            services.finish_service(name, whole)
        suspects = ["pairx", "suspects", "--warehouse", WAREHOUSE, "--format", "csv"]
        told = services.machine.execute(running, suspects, SECONDS)
        assert told.returncode == 0, told.stderr
        assert told.stdout.startswith("rank,")


def test_prefect_starts_a_night_that_ends_well(tmp_path):
    whole = described(tmp_path)
    with stack(tmp_path, list(whole["services"])) as services:
        for name in (*STAYING, "nights"):
            running = services.start_service(name, whole)
        for name in ("bucket", "schedule"):
            services.finish_service(name, whole)
        end = time.monotonic() + SECONDS
        while services.machine.execute(running, ["python", "-c", PLANNED], SECONDS).returncode:
            assert time.monotonic() < end, services.machine.log("prefect")[-3000:]
            time.sleep(5)
        (deployment,) = load("prefect.yaml")["deployments"]
        now = ["prefect", "deployment", "run", f"pairx-nightly/{deployment['name']}"]
        told = services.machine.execute(running, now, SECONDS)
        assert told.returncode == 0, told.stderr
        finished = "SELECT count(DISTINCT run_id) AS n FROM runs WHERE status = 'finished'"
        ask = ["pairx", "sql", finished, "--warehouse", WAREHOUSE, "--format", "csv"]
        end = time.monotonic() + SECONDS
        while services.machine.execute(running, ask, SECONDS).stdout.split() != ["n", "1"]:
            assert time.monotonic() < end, services.machine.log("nights")[-3000:]
            time.sleep(5)
