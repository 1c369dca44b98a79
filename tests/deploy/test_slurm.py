"""The Slurm example: its commands parse, its keys are read, and the script does what it says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.deploy.deploy_files import DEPLOY, PROJECT, ROOT, load, parse

SCRIPT = DEPLOY / "slurm" / "nightly.sh"
ARGUMENTS = {"$catalogue": "catalogue.csv", "$warehouse": "warehouse", "$WORKERS": "8", "$port": "4200"}
RECORD = """#!/bin/sh
# Stands for pairx: says what it was told, asks the server that it was told of, and waits to be stopped.
echo "$@" > told
python -c 'import os, urllib.request as u; u.urlopen(os.environ["PREFECT_API_URL"] + "/health")' && echo "$PREFECT_API_URL" > api
trap 'echo TERM >> told; kill $!; exit 143' TERM
sleep "$SLEEP" & wait $!
exit 7
"""


def command(first):
    """The words of the script's line that starts with a command, with its variables filled in."""
    (line,) = re.findall(rf"^{first} .*$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    words = shlex.split(line.removesuffix(" &"))
    return [ARGUMENTS.get(word, word) for word in words if word != "$@"]


def test_its_commands_are_known():
    run = parse(command("pairx run"))
    assert (run["catalogue"], run["warehouse"], run["wait"]) == ("catalogue.csv", "warehouse", True)
    server = parse(command("prefect server start"))
    assert server["host"] == "0.0.0.0", "workers must reach it"


def test_it_asks_for_the_cluster_by_a_name_that_exists():
    from flows.clusters.choice import KINDS

    wanted = parse(command("pairx run"))["cluster"]
    assert any(wanted in kind.words for kind in KINDS)
    assert wanted in PROJECT["project"]["optional-dependencies"]


def test_its_configuration_has_keys_that_are_read():
    found = find_spec("dask_jobqueue")
    if found is None:
        pytest.skip("dask-jobqueue is not installed")
    (place,) = found.submodule_search_locations
    known = yaml.safe_load(Path(place, "jobqueue.yaml").read_text(encoding="utf-8"))["jobqueue"]["slurm"]
    assert set(load("slurm/jobqueue.yaml")["jobqueue"]["slurm"]) <= set(known)


def start(folder, sleep):
    """The script in a folder, with a `pairx` that records its calls.

    SLURM_SUBMIT_DIR is set as Slurm would set it.
    """
    programs = folder / "environment" / "bin"
    programs.mkdir(parents=True)
    (programs / "pairx").write_text(RECORD, encoding="utf-8")
    (programs / "pairx").chmod(0o755)
    for name in ("python", "prefect"):
        (programs / name).write_text(
            f'#!/bin/sh\nexec {sys.executable} {"-m prefect" if name == "prefect" else ""} "$@"\n'
        )
        (programs / name).chmod(0o755)
    return subprocess.Popen(
        ["bash", SCRIPT, folder / "environment", "catalogue.csv", "s3://bucket/w", "--top-k", "3"],
        cwd=folder,
        env=os.environ | {"SLURM_SUBMIT_DIR": str(ROOT), "SLEEP": str(sleep), "TMPDIR": str(folder)},
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sleep", "code", "end"), [(0, 7, ""), (600, 143, "TERM\n")], ids=["runs", "is stopped"]
)
def test_it_runs_beside_a_server_and_leaves_nothing(tmp_path, sleep, code, end):
    script = start(tmp_path, sleep)
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "api").exists() and script.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if end:
            script.send_signal(signal.SIGTERM)
        assert script.wait(60) == code
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)
    told = "run catalogue.csv --warehouse s3://bucket/w --cluster slurm --workers 8 --wait --top-k 3\n"
    assert (tmp_path / "told").read_text() == told + end
    assert not list(tmp_path.glob("tmp.*"))
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(
            ["curl", "-sf", "-m", "3", (tmp_path / "api").read_text().strip() + "/health"], check=True
        )
